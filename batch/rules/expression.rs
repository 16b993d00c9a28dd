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

    pub(crate) fn new(root: Node, size: Size, grouping: Option<String>) -> Self {
        let mut fields = Vec::new();
        root.fields(&mut fields);
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
    fn fields(&self, to: &mut Vec<String>) {
        match self {
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().for_each(|node| node.fields(to)),
            Self::Not(node) => node.fields(to),
            Self::Truth(operand) => operand.fields(to),
            Self::Compare(left, _, right) => {
                left.fields(to);
                right.fields(to);
            }
        }
    }
}

impl Operand {
    fn fields(&self, to: &mut Vec<String>) {
        match self {
            Self::Literal(_) => {}
            Self::Field(name) => to.push(name.clone()),
            Self::Array(items) | Self::Call(_, items) => items.iter().for_each(|item| item.fields(to)),
            Self::Macro(node) => node.fields(to),
        }
    }
}
