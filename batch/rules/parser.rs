//! From tokens to expressions. `or` binds tighter than `and`, as existing configurations assume.

use std::collections::HashMap;

use crate::{
    lexer::{self, LexError, Operator, Token},
    value::Value,
};

/// Length of an expression at most, in bytes.
const LENGTH_MAX: usize = 16 * 1024;
/// Nesting of parentheses, negations and macros at most.
const DEPTH_MAX: usize = 64;

/// Why an expression cannot be used. Its text shows the line with a caret under the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}\n  {source_line}\n  {caret:>column$}", caret = '^')]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
    source_line: String,
}

impl ParseError {
    fn new(text: &str, at: usize, message: impl Into<String>) -> Self {
        let before = &text[..at];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            message: message.into(),
            source_line: text[start..].lines().next().unwrap_or_default().to_owned(),
        }
    }
}

/// A checked expression, macros put in.
#[derive(Debug, Clone)]
pub struct Expression {
    pub(crate) root: Node,
    mixed: bool,
}

impl Expression {
    /// Whether it mixes `and` with `or` without parentheses, which reads differently here than in most languages.
    #[must_use]
    pub fn mixes_and_with_or(&self) -> bool {
        self.mixed
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Compare(Operand, Operator, Operand),
    Truth(Operand),
    /// A macro, put in whole.
    Macro(Box<Node>),
}

#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Literal(Value<'static>),
    Field(String),
    /// An array literal that names fields.
    Array(Vec<Operand>),
    StartsWith(Box<(Operand, Operand)>),
}

/// Macros by name; compiles the rules that use them.
#[derive(Debug, Default)]
pub struct Rules {
    macros: HashMap<String, Expression>,
}

impl Rules {
    /// Takes the macros in any order.
    ///
    /// # Errors
    ///
    /// Name and error of the first macro that does not parse, is named twice or like a function, or calls itself.
    pub fn new<'a>(macros: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, (String, ParseError)> {
        let mut sources: HashMap<&str, &str> = HashMap::new();
        for (name, text) in macros {
            let clash = match name {
                "starts_with" | "zone" | "in_zone" => Some("is the name of a function"),
                _ if sources.insert(name, text).is_some() => Some("is defined twice"),
                _ => None,
            };
            if let Some(clash) = clash {
                return Err((name.to_owned(), ParseError::new(text, 0, format!("the macro `{name}` {clash}"))));
            }
        }
        let mut rules = Self::default();
        let mut names: Vec<&str> = sources.keys().copied().collect();
        names.sort_unstable();
        for name in names {
            rules.define(name, &sources, &mut Vec::new()).map_err(|error| (name.to_owned(), error))?;
        }
        Ok(rules)
    }

    fn define<'a>(
        &mut self,
        name: &'a str,
        sources: &HashMap<&'a str, &'a str>,
        open: &mut Vec<&'a str>,
    ) -> Result<(), ParseError> {
        let text = sources[name];
        if open.contains(&name) {
            let circle = open.join("()` calls `");
            return Err(ParseError::new(
                text,
                0,
                format!("`{circle}()` calls `{name}()`: macros cannot call themselves"),
            ));
        }
        if self.macros.contains_key(name) {
            return Ok(());
        }
        open.push(name);
        for called in called_functions(text) {
            if let Some((&called, _)) = sources.get_key_value(called.as_str()) {
                self.define(called, sources, open)?;
            }
        }
        open.pop();
        let expression = self.compile(text)?;
        self.macros.insert(name.to_owned(), expression);
        Ok(())
    }

    /// Parses and checks an expression.
    ///
    /// # Errors
    ///
    /// The place and what is wrong there.
    pub fn compile(&self, text: &str) -> Result<Expression, ParseError> {
        if text.len() > LENGTH_MAX {
            return Err(ParseError::new("", 0, format!("the expression is longer than {LENGTH_MAX} bytes")));
        }
        let tokens = lexer::tokens(text).map_err(|LexError { at, message }| ParseError::new(text, at, message))?;
        let mut parser = Parser { rules: self, text, tokens, next: 0, depth: 0, mixed: false };
        let root = parser.all()?;
        Ok(Expression { root, mixed: parser.mixed })
    }
}

fn called_functions(text: &str) -> Vec<String> {
    let tokens = lexer::tokens(text).unwrap_or_default();
    let name = |(_, token)| if let Token::Function(name) = token { Some(name) } else { None };
    tokens.into_iter().filter_map(name).collect()
}

struct Parser<'a> {
    rules: &'a Rules,
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    mixed: bool,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn take(&mut self) -> Token {
        let token = self.tokens[self.next].1.clone();
        self.next += usize::from(!matches!(token, Token::End));
        token
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(self.text, self.tokens[self.next].0, message))
    }

    fn expect(&mut self, matches: impl Fn(&Token) -> bool, what: &str) -> Result<(), ParseError> {
        if !matches(self.peek()) {
            return self.error(format!("expected {what}"));
        }
        self.take();
        Ok(())
    }

    fn all(&mut self) -> Result<Node, ParseError> {
        let node = self.conjunction()?;
        match self.peek() {
            Token::End => Ok(node),
            Token::Close => self.error("this parenthesis was never opened"),
            _ => self.error("expected an operator, `and` or `or` here"),
        }
    }

    fn conjunction(&mut self) -> Result<Node, ParseError> {
        let (mut node, mut mixed) = self.disjunction()?;
        let mut ands = false;
        while matches!(self.peek(), Token::And) {
            self.take();
            let (right, with_or) = self.disjunction()?;
            (ands, mixed) = (true, mixed || with_or);
            node = Node::And(Box::new(node), Box::new(right));
        }
        self.mixed |= ands && mixed;
        Ok(node)
    }

    /// The second value says whether an `or` stood at this level.
    fn disjunction(&mut self) -> Result<(Node, bool), ParseError> {
        let mut node = self.negation()?;
        let mut ors = false;
        while matches!(self.peek(), Token::Or) {
            self.take();
            ors = true;
            node = Node::Or(Box::new(node), Box::new(self.negation()?));
        }
        Ok((node, ors))
    }

    fn negation(&mut self) -> Result<Node, ParseError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.error(format!("nested deeper than {DEPTH_MAX}"));
        }
        let node = match self.peek() {
            Token::Not => {
                self.take();
                Node::Not(Box::new(self.negation()?))
            }
            Token::Open => {
                self.take();
                let node = self.conjunction()?;
                self.expect(|t| matches!(t, Token::Close), "`)`")?;
                node
            }
            _ => self.predicate()?,
        };
        self.depth -= 1;
        Ok(node)
    }

    fn predicate(&mut self) -> Result<Node, ParseError> {
        if let Token::Function(name) = self.peek().clone()
            && let Some(expression) = self.rules.macros.get(&name)
        {
            self.take();
            self.expect(|t| matches!(t, Token::Close), "`)`: macros take no arguments")?;
            return Ok(Node::Macro(Box::new(expression.root.clone())));
        }
        let left = self.operand()?;
        let Token::Operator(operator) = *self.peek() else { return Ok(Node::Truth(left)) };
        self.take();
        let at = self.next;
        let right = self.operand()?;
        self.check(&left, operator, &right, at)?;
        Ok(Node::Compare(left, operator, right))
    }

    /// Which operands an operator takes.
    fn check(&mut self, left: &Operand, operator: Operator, right: &Operand, at: usize) -> Result<(), ParseError> {
        let number = |o: &Operand| matches!(o, Operand::Field(_) | Operand::Literal(Value::Int(_) | Value::Float(_)));
        let fault = match operator {
            Operator::Gt | Operator::Ge | Operator::Lt | Operator::Le if !number(left) || !number(right) => {
                "inequalities compare numbers and fields: write the number without quotes"
            }
            Operator::Matches if !matches!(right, Operand::Literal(Value::Regex(_))) => {
                "expected a regular expression such as /^a.*z$/ or |^a.*z$|"
            }
            Operator::In
                if !matches!(right, Operand::Literal(Value::Array(_) | Value::Cidr(_)) | Operand::Array(_)) =>
            {
                "expected an array such as [1, 2] or an address range"
            }
            _ => return Ok(()),
        };
        self.next = at;
        self.error(fault)
    }

    fn operand(&mut self) -> Result<Operand, ParseError> {
        match self.peek().clone() {
            Token::Literal(value) => {
                self.take();
                Ok(Operand::Literal(value))
            }
            Token::Field(name) => {
                self.take();
                Ok(Operand::Field(name))
            }
            Token::OpenArray => self.array(),
            Token::Function(name) => self.call(&name),
            Token::End => self.error("the expression ends where a value or a field is expected"),
            Token::Operator(_) | Token::And | Token::Or => {
                self.error("expected a value or a field before this operator")
            }
            _ => self.error("expected a value or a field"),
        }
    }

    fn array(&mut self) -> Result<Operand, ParseError> {
        self.take();
        let mut items = Vec::new();
        loop {
            match self.peek() {
                Token::Literal(_) | Token::Field(_) => items.push(self.operand()?),
                _ => return self.error("expected a value; arrays are not empty and not nested"),
            }
            match self.take() {
                Token::Comma => {}
                Token::CloseArray => break,
                _ => {
                    self.next -= 1;
                    return self.error("expected `,` or `]`");
                }
            }
        }
        let literals = items.iter().map(|item| if let Operand::Literal(v) = item { Some(v.clone()) } else { None });
        Ok(literals.collect::<Option<Vec<_>>>().map_or(Operand::Array(items), |v| Operand::Literal(Value::Array(v))))
    }

    fn call(&mut self, name: &str) -> Result<Operand, ParseError> {
        if name != "starts_with" {
            let known = self.rules.macros.keys().map(|m| format!("`{m}()`")).chain(["`starts_with(a, b)`".into()]);
            let mut known: Vec<String> = known.collect();
            known.sort_unstable();
            return self.error(format!("`{name}` is neither a macro nor a function; there are {}", known.join(", ")));
        }
        self.take();
        let value = self.operand()?;
        self.expect(|t| matches!(t, Token::Comma), "`,`: starts_with takes two arguments")?;
        let prefix = self.operand()?;
        self.expect(|t| matches!(t, Token::Close), "`)`: starts_with takes two arguments")?;
        Ok(Operand::StartsWith(Box::new((value, prefix))))
    }
}
