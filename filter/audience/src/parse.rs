//! From text to tree: a descent over the grammar, which also checks what every field takes.
//!
//! ```text
//! any       = all { "||" all }
//! all       = unary { "&&" unary }
//! unary     = { "!" } ( "(" any ")" | predicate )
//! predicate = field operator literal | field ["not"] "in" "[" literal { "," literal } "]" | function "(" … ")"
//! ```
//! `missing(f)` is read as `!has(f)`, and `user("u")` as `user_id == "u"`.

mod call;
mod check;
#[cfg(test)]
mod tests;
mod token;

use std::str::FromStr;

use crate::{
    EXPRESSION_MAX_BYTES, Invalid, Schema,
    expr::{COST_MAX, Comparison, DEPTH_MAX, Expr, LEAVES_MAX, Leaf, VALUES_MAX},
    field::{ATTRIBUTE, ATTRIBUTE_NAME_MAX_BYTES, BuiltIn, Field, did_you_mean},
    literal::Literal,
};
use token::{Token, tokens};

/// Most parentheses open at once: some more than the deepest tree needs, and few enough for any stack.
pub(crate) const PARENTHESES_MAX: usize = 2 * DEPTH_MAX;

impl FromStr for Expr {
    type Err = Invalid;

    /// Takes every attribute, of any type: [`Expr::parse`] with [`Schema::open`].
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text, &Schema::open())
    }
}

impl Expr {
    /// Reads an expression about devices whose attributes are these.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self, Invalid> {
        if text.len() > EXPRESSION_MAX_BYTES {
            return Err(too_complex(1, format!("longer than {EXPRESSION_MAX_BYTES} bytes")));
        }
        let mut parser = Parser { schema, tokens: tokens(text)?, at: 0, leaves: 0, open: 0 };
        let expr = parser.any()?;
        if *parser.next() != Token::End {
            return Err(parser.expected("`&&`, `||` or the end"));
        }
        affordable(&expr)?;
        Ok(expr)
    }
}

/// Refuses what is nested too deep, or would cost too much to answer, before it is answered.
pub(crate) fn affordable(expr: &Expr) -> Result<(), Invalid> {
    let (depth, cost) = (expr.depth(), expr.leaves().into_iter().map(Leaf::cost).sum::<usize>());
    if depth > DEPTH_MAX {
        return Err(too_complex(1, format!("`&&` and `||` are nested {depth} deep; at most {DEPTH_MAX}")));
    }
    if cost > COST_MAX {
        let most = "samples, groups and saved audiences cost most, then ranges of texts";
        return Err(too_complex(1, format!("it would cost {cost}, more than {COST_MAX}: {most}")));
    }
    Ok(())
}

fn invalid(column: usize, code: &'static str, reason: impl Into<String>) -> Invalid {
    Invalid { column, reason: reason.into(), code }
}

fn too_complex(column: usize, reason: impl Into<String>) -> Invalid {
    invalid(column, "filter_too_complex", reason)
}

struct Parser<'a> {
    schema: &'a Schema,
    tokens: Vec<(usize, Token)>,
    at: usize,
    leaves: usize,
    open: usize,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Expr, Invalid> {
        let mut expr = self.all()?;
        while self.eat("||") {
            expr = expr | self.all()?;
        }
        Ok(expr)
    }

    fn all(&mut self) -> Result<Expr, Invalid> {
        let mut expr = self.unary()?;
        while self.eat("&&") {
            expr = expr & self.unary()?;
        }
        Ok(expr)
    }

    fn unary(&mut self) -> Result<Expr, Invalid> {
        let mut negated = false;
        while self.eat("!") {
            negated = !negated;
        }
        let column = self.column();
        let expr = if self.eat("(") { self.group(column)? } else { self.predicate()? };
        Ok(if negated { !expr } else { expr })
    }

    fn group(&mut self, column: usize) -> Result<Expr, Invalid> {
        self.open += 1;
        if self.open > PARENTHESES_MAX {
            return Err(too_complex(column, format!("more than {PARENTHESES_MAX} parentheses in each other")));
        }
        let expr = self.any()?;
        self.expect(")")?;
        self.open -= 1;
        Ok(expr)
    }

    fn predicate(&mut self) -> Result<Expr, Invalid> {
        let column = self.column();
        self.leaves += 1;
        if self.leaves > LEAVES_MAX {
            return Err(too_complex(column, format!("more than {LEAVES_MAX} predicates")));
        }
        let word = self.word("a field or a function")?;
        if self.eat("(") {
            let expr = self.call(column, &word)?;
            self.expect(")")?;
            return Ok(expr);
        }
        let field = self.known(column, &word)?;
        let sign = Comparison::ALL.into_iter().find(|comparison| self.eat(comparison.as_str()));
        match sign {
            Some(comparison) => self.comparison(field, comparison).map(Expr::from),
            None => self.list(field).map(Expr::from),
        }
    }

    fn comparison(&mut self, field: Field, comparison: Comparison) -> Result<Leaf, Invalid> {
        let column = self.column();
        let with = self.literal(&field)?;
        if comparison.is_ordered() {
            check::ordered(column, &with)?;
        }
        Ok(Leaf::Compare { field, comparison, with })
    }

    fn list(&mut self, field: Field) -> Result<Leaf, Invalid> {
        let negated = self.eat_word("not");
        if !self.eat_word("in") {
            return Err(self.expected(if negated { "`in`" } else { "a comparison, `in` or `not in`" }));
        }
        self.expect("[")?;
        let values = self.values(|parser| {
            let column = parser.column();
            let value = parser.literal(&field)?;
            check::ordered(column, &value)?;
            Ok((column, value))
        })?;
        self.expect("]")?;
        check::same_type(&values)?;
        Ok(Leaf::In { field, negated, values: values.into_iter().map(|(_, value)| value).collect() })
    }

    /// One or more, between commas.
    fn values<T>(&mut self, mut value: impl FnMut(&mut Self) -> Result<T, Invalid>) -> Result<Vec<T>, Invalid> {
        let mut values = vec![value(self)?];
        while self.eat(",") {
            if values.len() == VALUES_MAX {
                return Err(too_complex(self.column(), format!("more than {VALUES_MAX} values")));
            }
            values.push(value(self)?);
        }
        Ok(values)
    }

    fn literal(&mut self, field: &Field) -> Result<Literal, Invalid> {
        let column = self.column();
        let Token::Literal(literal) = self.next().clone() else { return Err(self.expected("a value")) };
        self.at += 1;
        check::typed(column, field, self.schema.kind(field), literal)
    }

    /// The field of this name, if devices have one.
    fn known(&self, column: usize, word: &str) -> Result<Field, Invalid> {
        let field = field(column, word)?;
        self.schema.find(column, &field)?;
        Ok(field)
    }

    fn text(&mut self) -> Result<String, Invalid> {
        let Token::Literal(Literal::Text(text)) = self.next().clone() else {
            return Err(self.expected("a text in quotes"));
        };
        self.at += 1;
        Ok(text)
    }

    fn word(&mut self, what: &str) -> Result<String, Invalid> {
        let Token::Word(word) = self.next().clone() else { return Err(self.expected(what)) };
        self.at += 1;
        Ok(word)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let eaten = matches!(self.next(), Token::Sign(next) if *next == sign);
        self.at += usize::from(eaten);
        eaten
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let eaten = matches!(self.next(), Token::Word(next) if next == word);
        self.at += usize::from(eaten);
        eaten
    }

    fn expect(&mut self, sign: &str) -> Result<(), Invalid> {
        if self.eat(sign) { Ok(()) } else { Err(self.expected(&format!("`{sign}`"))) }
    }

    /// The end is never passed, so there is always a next token.
    fn next(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, token)| token)
    }

    fn column(&self) -> usize {
        self.tokens.get(self.at).map_or(1, |(column, _)| *column)
    }

    fn expected(&self, what: &str) -> Invalid {
        let found = self.next();
        let hint = match found {
            Token::Word(word) if word.eq_ignore_ascii_case("and") => "; and is written `&&`",
            Token::Word(word) if word.eq_ignore_ascii_case("or") => "; or is written `||`",
            Token::Word(_) if what == "a value" => "; a text stands in quotes",
            _ => "",
        };
        invalid(self.column(), "malformed_filter", format!("expected {what}, found {found}{hint}"))
    }
}

fn field(column: usize, word: &str) -> Result<Field, Invalid> {
    if let Some(field) = Field::named(word) {
        return Ok(field);
    }
    if word.starts_with(ATTRIBUTE) {
        let reason = format!(
            "{word} is no attribute: a name is a-z, then at most {} of a-z 0-9 _",
            ATTRIBUTE_NAME_MAX_BYTES - 1
        );
        return Err(invalid(column, "unknown_attribute", reason));
    }
    let hint = did_you_mean(word, BuiltIn::ALL.map(BuiltIn::as_str))
        .unwrap_or_else(|| format!("; an attribute of your own is written {ATTRIBUTE}{word}"));
    Err(invalid(column, "unknown_attribute", format!("{word} is no field{hint}")))
}
