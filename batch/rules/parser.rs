//! From tokens to expressions. `or` binds tighter than `and`, as existing configurations assume.

use std::ops::Range;

use crate::{
    expression::{Expression, Node, Operand, Size},
    functions::{FUNCTIONS, Function},
    lexer::{Operator, Token},
    macros::{Macro, Rules},
    value::Value,
};

/// Nesting of parentheses, negations, calls and macros at most.
pub(crate) const DEPTH_MAX: usize = 64;
/// Parts of an expression at most, macros put in: macros that call macros would grow without end.
const NODES_MAX: usize = 20_000;

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
    pub(crate) fn new(text: &str, at: usize, message: impl Into<String>) -> Self {
        let before = &text[..at];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            message: message.into(),
            // A tab is as wide as the caret's line needs it.
            source_line: text[start..].lines().next().unwrap_or_default().replace('\t', " "),
        }
    }
}

pub(crate) struct Parser<'a> {
    rules: &'a Rules,
    text: &'a str,
    tokens: Vec<(Range<usize>, Token)>,
    next: usize,
    depth: usize,
    deepest: usize,
    nodes: usize,
    /// Where parentheses would have to stand to be read alike everywhere.
    groups: Vec<(usize, &'static str)>,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    pub(crate) fn new(rules: &'a Rules, text: &'a str, tokens: Vec<(Range<usize>, Token)>) -> Self {
        Self { rules, text, tokens, next: 0, depth: 0, deepest: 0, nodes: 0, groups: Vec::new() }
    }

    pub(crate) fn parse(mut self) -> Parsed<Expression> {
        let root = self.conjunction()?;
        match self.peek() {
            Token::End => {}
            Token::Close => return self.error("this parenthesis was never opened"),
            Token::Not => return self.error("`not` stands in front of a whole comparison: write `not x in y`"),
            Token::Operator(_) => return self.error("a comparison cannot be compared: put `and` or `or` between"),
            _ => return self.error("expected an operator, `and` or `or` here"),
        }
        let grouping = self.grouping();
        Ok(Expression::new(root, Size { nodes: self.nodes, depth: self.deepest }, grouping))
    }

    fn grouping(&mut self) -> Option<String> {
        self.groups.sort_unstable_by_key(|(at, _)| *at);
        let mut text = self.text.to_owned();
        for (at, parenthesis) in self.groups.iter().rev() {
            text.insert_str(*at, parenthesis);
        }
        (!self.groups.is_empty()).then(|| text.trim().to_owned())
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn take(&mut self) -> Token {
        let token = self.tokens[self.next].1.clone();
        self.next += usize::from(!matches!(token, Token::End));
        token
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0.start
    }

    /// Behind the token before the next one.
    fn end(&self) -> usize {
        self.tokens[self.next.max(1) - 1].0.end
    }

    fn error<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(ParseError::new(self.text, self.at(), message))
    }

    fn expect(&mut self, matches: impl Fn(&Token) -> bool, what: &str) -> Parsed<()> {
        if !matches(self.peek()) {
            return self.error(format!("expected {what}"));
        }
        self.take();
        Ok(())
    }

    fn grow(&mut self, nodes: usize, depth: usize) -> Parsed<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.deepest = self.deepest.max(self.depth + depth);
        if self.deepest > DEPTH_MAX {
            return self.error(format!("nested deeper than {DEPTH_MAX}"));
        }
        if self.nodes > NODES_MAX {
            return self.error(format!("more than {NODES_MAX} parts, with macros put in"));
        }
        Ok(())
    }

    fn conjunction(&mut self) -> Parsed<Node> {
        let (mut parts, mut spans) = (Vec::new(), Vec::new());
        loop {
            let start = self.at();
            let (part, joined) = self.disjunction()?;
            spans.extend((joined > 1).then(|| (start, self.end())));
            parts.push(part);
            if !matches!(self.peek(), Token::And) {
                break;
            }
            self.take();
        }
        if parts.len() > 1 {
            self.groups.extend(spans.into_iter().flat_map(|(start, end)| [(start, "("), (end, ")")]));
        }
        Ok(one_or(parts, Node::And))
    }

    /// The second value says how many parts `or` joins at this level.
    fn disjunction(&mut self) -> Parsed<(Node, usize)> {
        let mut parts = vec![self.negation()?];
        while matches!(self.peek(), Token::Or) {
            self.take();
            parts.push(self.negation()?);
        }
        let joined = parts.len();
        Ok((one_or(parts, Node::Or), joined))
    }

    fn negation(&mut self) -> Parsed<Node> {
        self.depth += 1;
        self.grow(1, 0)?;
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

    fn predicate(&mut self) -> Parsed<Node> {
        let left_at = self.next;
        let left = self.operand()?;
        let Token::Operator(operator) = *self.peek() else { return Ok(Node::Truth(left)) };
        self.take();
        let right_at = self.next;
        if operator == Operator::In && matches!(self.peek(), Token::Not) {
            return self.error("write `not x in y`");
        }
        let right = self.operand()?;
        self.check(&left, operator, &right, [left_at, right_at])?;
        Ok(Node::Compare(left, operator, right))
    }

    /// Which operands an operator takes.
    fn check(&mut self, left: &Operand, operator: Operator, right: &Operand, at: [usize; 2]) -> Parsed<()> {
        let number = |o: &Operand| matches!(o, Operand::Field(_) | Operand::Literal(Value::Int(_) | Value::Float(_)));
        let fault = match operator {
            Operator::Gt | Operator::Ge | Operator::Lt | Operator::Le if !number(left) || !number(right) => {
                self.next = if number(left) { at[1] } else { at[0] };
                return self.error("inequalities compare numbers and fields: write the number without quotes");
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
        self.next = at[1];
        self.error(fault)
    }

    fn operand(&mut self) -> Parsed<Operand> {
        self.grow(1, 0)?;
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
            Token::Operator(Operator::In) if self.next > 0 && matches!(self.tokens[self.next - 1].1, Token::Not) => {
                self.error("write `not x in y`")
            }
            Token::Operator(_) | Token::And | Token::Or => {
                self.error("expected a value or a field before this operator")
            }
            _ => self.error("expected a value or a field"),
        }
    }

    fn array(&mut self) -> Parsed<Operand> {
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
                other => {
                    self.next -= usize::from(!matches!(other, Token::End));
                    return self.error("expected `,` or `]`");
                }
            }
        }
        let literals = items.iter().map(|item| if let Operand::Literal(v) = item { Some(v.clone()) } else { None });
        Ok(literals.collect::<Option<Vec<_>>>().map_or(Operand::Array(items), |v| Operand::Literal(Value::Array(v))))
    }

    fn call(&mut self, name: &str) -> Parsed<Operand> {
        if let Some(Macro { root, size }) = self.rules.get(name) {
            self.grow(size.nodes, size.depth)?;
            self.take();
            self.expect(|t| matches!(t, Token::Close), "`)`: macros take no arguments")?;
            return Ok(Operand::Macro(root.clone()));
        }
        let Some((function, form)) = Function::named(name) else {
            let macros = self.rules.names().into_iter().map(|name| format!("`{name}()`"));
            let functions = FUNCTIONS.iter().map(|(.., form)| format!("`{form}`"));
            let known: Vec<String> = macros.chain(functions).collect();
            return self.error(format!("`{name}` is neither a macro nor a function; there are {}", known.join(", ")));
        };
        self.take();
        self.depth += 1;
        let mut arguments = Vec::new();
        for at in 0..function.arguments() {
            if at > 0 {
                self.expect(|t| matches!(t, Token::Comma), &format!("`,`: it is `{form}`"))?;
            }
            arguments.push(self.operand()?);
        }
        self.expect(|t| matches!(t, Token::Close), &format!("`)`: it is `{form}`"))?;
        self.depth -= 1;
        Ok(Operand::Call(function, arguments))
    }
}

fn one_or(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match (nodes.len(), nodes.pop()) {
        (1, Some(node)) => node,
        (_, last) => {
            nodes.extend(last);
            many(nodes)
        }
    }
}
