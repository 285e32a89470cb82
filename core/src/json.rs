//! The small trait through which jobs and identity rules read JSON.
//!
//! It is implemented here for `serde_json::Value` (tests, imports) and in the PostgreSQL shell for jsonb walked in place.

use std::borrow::Cow;

/// The six kinds of JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A borrowed JSON value that can be looked into without copying it.
pub trait Json<'a>: Copy {
    fn kind(self) -> Kind;
    /// The text of a string; `None` for every other kind.
    fn as_str(self) -> Option<Cow<'a, str>>;
    /// The decimal text of a number, exact to the digit; `None` for every other kind.
    fn number_text(self) -> Option<Cow<'a, str>>;
    /// The member `key` of an object; `None` when absent or not an object.
    fn get(self, key: &str) -> Option<Self>;
    /// Elements of an array or members of an object; 0 for a scalar.
    fn len(self) -> usize;
    /// Element `index` of an array; `None` past its end or when not an array.
    fn at(self, index: usize) -> Option<Self>;

    fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// JSON whose objects can be gone through, which only some jobs need.
pub trait Members<'a>: Json<'a> {
    /// Name and value of member `index` of an object, in any order that stays; `None` past its end or when no object.
    fn member(self, index: usize) -> Option<(Cow<'a, str>, Self)>;

    /// The members of an object; none of anything else.
    fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Self)> {
        (0..).map_while(move |index| self.member(index))
    }

    /// The elements of an array; none of anything else.
    fn elements(self) -> impl Iterator<Item = Self> {
        (0..).map_while(move |index| self.at(index))
    }
}

impl<'a> Members<'a> for &'a serde_json::Value {
    fn member(self, index: usize) -> Option<(Cow<'a, str>, Self)> {
        let (name, value) = self.as_object()?.iter().nth(index)?;
        Some((Cow::Borrowed(name), value))
    }

    // `nth` of a tree walks from its beginning each time.
    fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Self)> {
        self.as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (Cow::Borrowed(name.as_str()), value))
    }
}

impl<'a> Json<'a> for &'a serde_json::Value {
    fn kind(self) -> Kind {
        match self {
            serde_json::Value::Null => Kind::Null,
            serde_json::Value::Bool(_) => Kind::Bool,
            serde_json::Value::Number(_) => Kind::Number,
            serde_json::Value::String(_) => Kind::String,
            serde_json::Value::Array(_) => Kind::Array,
            serde_json::Value::Object(_) => Kind::Object,
        }
    }

    fn as_str(self) -> Option<Cow<'a, str>> {
        serde_json::Value::as_str(self).map(Cow::Borrowed)
    }

    fn number_text(self) -> Option<Cow<'a, str>> {
        match self {
            serde_json::Value::Number(number) => Some(Cow::Borrowed(number.as_str())),
            _ => None,
        }
    }

    fn get(self, key: &str) -> Option<Self> {
        self.as_object()?.get(key)
    }

    fn len(self) -> usize {
        match self {
            serde_json::Value::Array(elements) => elements.len(),
            serde_json::Value::Object(members) => members.len(),
            _ => 0,
        }
    }

    fn at(self, index: usize) -> Option<Self> {
        self.as_array()?.get(index)
    }
}
