//! Words, values and signs of an expression, each with its column.

use std::{fmt, iter::Peekable, str::Chars};

use crate::{
    Invalid,
    literal::{Literal, Span},
};

/// The signs of the language; a longer one before its own beginning.
const SIGNS: [&str; 14] = ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ","];

/// A piece of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A name of a field or a function, or a word of the language.
    Word(String),
    /// A value; never a version or a time, which are texts until it is known what they are compared with.
    Literal(Literal),
    /// One of [`SIGNS`].
    Sign(&'static str),
    /// What follows the last piece.
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Literal(literal) => literal.fmt(f),
            Self::Sign(sign) => write!(f, "`{sign}`"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// Takes an expression apart: its pieces and their columns, [`Token::End`] last.
pub(crate) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Invalid> {
    let mut reader = Reader { rest: text.chars().peekable(), column: 1 };
    let mut tokens = Vec::new();
    loop {
        while reader.take_if(char::is_whitespace).is_some() {}
        let column = reader.column;
        let token = reader.token().map_err(|reason| Invalid { column, reason, code: "malformed_filter" })?;
        let end = token == Token::End;
        tokens.push((column, token));
        if end {
            return Ok(tokens);
        }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    column: usize,
}

impl Reader<'_> {
    fn token(&mut self) -> Result<Token, String> {
        match self.rest.peek().copied() {
            None => Ok(Token::End),
            Some(quote @ ('"' | '\'')) => self.text(quote).map(Token::Literal),
            Some(c) if c.is_ascii_digit() || c == '-' => self.number().map(Token::Literal),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => Ok(self.word()),
            Some(_) => self.sign(),
        }
    }

    fn take_if(&mut self, legal: impl Fn(char) -> bool) -> Option<char> {
        let taken = self.rest.next_if(|c| legal(*c))?;
        self.column += 1;
        Some(taken)
    }

    fn take_while(&mut self, legal: impl Fn(char) -> bool) -> String {
        std::iter::from_fn(|| self.take_if(&legal)).collect()
    }

    fn text(&mut self, quote: char) -> Result<Literal, String> {
        self.take_if(|c| c == quote);
        let mut text = String::new();
        loop {
            text += &self.take_while(|c| c != quote && c != '\\');
            if self.take_if(|c| c == quote).is_some() {
                return Ok(Literal::Text(text));
            }
            if self.take_if(|c| c == '\\').is_none() {
                return Err("this text has no closing quote".into());
            }
            text.push(match self.take_if(|_| true) {
                Some(c @ ('"' | '\'' | '\\')) => c,
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                _ => return Err("in a text, `\\` stands only before `\"`, `'`, `\\`, n, r and t".into()),
            });
        }
    }

    fn number(&mut self) -> Result<Literal, String> {
        let mut text: String = self.take_if(|c| c == '-').into_iter().collect();
        text += &self.take_while(|c| c.is_ascii_alphanumeric() || c == '.');
        if text.ends_with('e') {
            text.extend(self.take_if(|c| c == '-' || c == '+'));
            text += &self.take_while(|c| c.is_ascii_digit());
        }
        let digits = |text: &str| text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
        if text.ends_with(|c: char| c.is_ascii_alphabetic()) && digits(&text) {
            return text.parse::<Span>().map(Literal::Relative).map_err(str::to_owned);
        }
        let number = text.parse().ok().filter(|number: &f64| number.is_finite() && digits(&text));
        number.map(Literal::Number).ok_or_else(|| format!("{text} is not a number"))
    }

    fn word(&mut self) -> Token {
        match self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
            word if word == "true" => Token::Literal(Literal::Bool(true)),
            word if word == "false" => Token::Literal(Literal::Bool(false)),
            word => Token::Word(word),
        }
    }

    fn sign(&mut self) -> Result<Token, String> {
        let rest = self.rest.clone();
        let sign = SIGNS.into_iter().find(|sign| rest.clone().take(sign.len()).eq(sign.chars()));
        match (sign, self.rest.peek()) {
            (Some(sign), _) => {
                for c in sign.chars() {
                    self.take_if(|next| next == c);
                }
                Ok(Token::Sign(sign))
            }
            (None, Some(c @ ('=' | '&' | '|'))) => Err(format!("`{c}` is written twice")),
            (None, Some(c)) => Err(format!("{c:?} means nothing here")),
            (None, None) => Ok(Token::End),
        }
    }
}
