//! Checked expressions.

use std::sync::Arc;

use crate::{functions::Function, lexer::Operator, value::Value};

/// A checked expression, macros put in.
#[derive(Debug, Clone)]
pub struct Expression {
    pub(crate) root: Node,
    /// Names of the fields that it reads, each once, in the order of the alphabet.
    pub(crate) fields: Vec<String>,
    pub(crate) size: Size,
    pub(crate) grouping: Option<String>,
}

/// How large an expression is with its macros put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) depth: usize,
}

impl Expression {
    /// How it is read, in parentheses, if it mixes `and` with `or` without them: that reads differently here than in most
    /// languages.
    #[must_use]
    pub fn grouping(&self) -> Option<&str> {
        self.grouping.as_deref()
    }

    /// Names of the fields that it reads.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Hexadecimal literals that look like words, such as `face`: whoever writes one may have meant a text.
    #[must_use]
    pub fn hexadecimal_words(&self) -> Vec<&str> {
        let mut words = Vec::new();
        self.root.operands(&mut |operand| {
            if let Operand::Literal(Value::Hex(_, word)) = operand
                && !word.contains(':')
            {
                words.push(word.as_ref());
            }
        });
        words
    }

    pub(crate) fn new(root: Node, size: Size, grouping: Option<String>) -> Self {
        let mut fields: Vec<String> = Vec::new();
        root.operands(&mut |operand| {
            if let Operand::Field(name) = operand {
                fields.push(name.clone());
            }
        });
        fields.sort_unstable();
        fields.dedup();
        Self { root, fields, size, grouping }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// Two or more.
    And(Vec<Node>),
    /// Two or more.
    Or(Vec<Node>),
    Not(Box<Node>),
    Compare(Operand, Operator, Operand),
    Truth(Operand),
}

#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Literal(Value<'static>),
    Field(String),
    /// An array literal that names fields.
    Array(Vec<Operand>),
    Call(Function, Vec<Operand>),
    /// A macro, put in whole; shared by all its uses.
    Macro(Arc<Node>),
}

impl Node {
    /// Shows every operand.
    fn operands<'a>(&'a self, to: &mut dyn FnMut(&'a Operand)) {
        match self {
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().for_each(|node| node.operands(to)),
            Self::Not(node) => node.operands(to),
            Self::Truth(operand) => operand.all(to),
            Self::Compare(left, _, right) => {
                left.all(to);
                right.all(to);
            }
        }
    }
}

impl Operand {
    fn all<'a>(&'a self, to: &mut dyn FnMut(&'a Operand)) {
        to(self);
        match self {
            Self::Literal(_) | Self::Field(_) => {}
            Self::Array(items) | Self::Call(_, items) => items.iter().for_each(|item| item.all(to)),
            Self::Macro(node) => node.operands(to),
        }
    }
}
