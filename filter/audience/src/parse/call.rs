//! The functions of the language.

use std::str::FromStr;

use model::id::InvalidId;

use super::{Parser, check, invalid, token::Token};
use crate::{
    Invalid,
    expr::{Comparison, Expr, Leaf, Quantity, Saved},
    field::{BuiltIn, Field, did_you_mean},
    literal::Literal,
};

/// Every function, for those who mistype one.
const FUNCTIONS: [&str; 14] = [
    "audience",
    "between",
    "contains",
    "contains_all",
    "contains_any",
    "group",
    "has",
    "missing",
    "sample",
    "starts_with",
    "tag",
    "tag_all",
    "tag_any",
    "user",
];

impl Parser<'_> {
    /// What stands between the parentheses of the function `name`.
    pub(super) fn call(&mut self, column: usize, name: &str) -> Result<Expr, Invalid> {
        let leaf = match name {
            "missing" => return Ok(!Expr::from(Leaf::Has(self.field()?))),
            "has" => Leaf::Has(self.field()?),
            "between" => self.between()?,
            "starts_with" => self.starts_with()?,
            "contains" | "contains_any" | "contains_all" => self.contains(name)?,
            "tag" => Leaf::Tags { quantity: Quantity::Any, tags: vec![self.text()?] },
            "tag_any" | "tag_all" => {
                let tags = self.values(Self::text)?;
                Leaf::Tags { quantity: quantity(name, &tags), tags }
            }
            "user" => self.user()?,
            "sample" => self.sample()?,
            "group" => Leaf::Saved(Saved::Group(self.id()?)),
            "audience" => Leaf::Saved(Saved::Audience(self.id()?)),
            _ => {
                let reason = format!("{name} is no function{}", did_you_mean(name, FUNCTIONS).unwrap_or_default());
                return Err(invalid(column, "unknown_function", reason));
            }
        };
        Ok(leaf.into())
    }

    fn field(&mut self) -> Result<Field, Invalid> {
        let column = self.column();
        let word = self.word("a field")?;
        self.known(column, &word)
    }

    fn id<T: FromStr<Err = InvalidId>>(&mut self) -> Result<T, Invalid> {
        let column = self.column();
        self.text()?.parse().map_err(|error: InvalidId| invalid(column, "invalid_id", error.to_string()))
    }

    fn between(&mut self) -> Result<Leaf, Invalid> {
        let field = self.field()?;
        let ends = [self.range_end(&field)?, self.range_end(&field)?];
        check::same_type(&ends)?;
        let [(_, from), (_, to)] = ends;
        Ok(Leaf::Between { field, from, to })
    }

    fn range_end(&mut self, field: &Field) -> Result<(usize, Literal), Invalid> {
        self.expect(",")?;
        let column = self.column();
        let end = self.literal(field)?;
        check::range(column, self.schema.kind(field), &end)?;
        Ok((column, end))
    }

    fn starts_with(&mut self) -> Result<Leaf, Invalid> {
        let column = self.column();
        let field = self.field()?;
        check::text_field(column, &field, self.schema.kind(&field))?;
        self.expect(",")?;
        Ok(Leaf::StartsWith { field, prefix: self.text()? })
    }

    fn contains(&mut self, name: &str) -> Result<Leaf, Invalid> {
        let column = self.column();
        let field = self.field()?;
        check::list_field(column, &field, self.schema.kind(&field))?;
        self.expect(",")?;
        let values = if name == "contains" { vec![self.text()?] } else { self.values(Self::text)? };
        Ok(Leaf::Contains { field, quantity: quantity(name, &values), values })
    }

    fn user(&mut self) -> Result<Leaf, Invalid> {
        let field = Field::BuiltIn(BuiltIn::UserId);
        let users: Vec<Literal> = self.values(Self::text)?.into_iter().map(Literal::Text).collect();
        Ok(match <[Literal; 1]>::try_from(users) {
            Ok([with]) => Leaf::Compare { field, comparison: Comparison::Equal, with },
            Err(values) => Leaf::In { field, negated: false, values },
        })
    }

    fn sample(&mut self) -> Result<Leaf, Invalid> {
        let column = self.column();
        let Token::Literal(Literal::Number(percent)) = *self.next() else { return Err(self.expected("a percentage")) };
        self.at += 1;
        let steps = (percent * 100.0).round();
        if !(1.0..=10_000.0).contains(&steps) || (steps - percent * 100.0).abs() > 1e-6 {
            return Err(invalid(column, "out_of_range", "a sample is 0.01 to 100 percent, in steps of 0.01"));
        }
        self.expect(",")?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 1 to 10,000")]
        Ok(Leaf::Sample { hundredths: steps as u16, salt: self.text()? })
    }
}

/// How many a function asks for by its name; one value is asked for in one way only.
fn quantity(name: &str, values: &[String]) -> Quantity {
    if name.ends_with("_all") && values.len() > 1 { Quantity::All } else { Quantity::Any }
}
