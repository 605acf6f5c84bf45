//! What may stand at a key: how it is read, and how the JSON Schema describes it.

use std::fmt::Display;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use foldline_api::secret::Secret;
use serde_json::Value;

use super::key::Section;
use super::reader::{Field, Reader};
use super::scalar::{format_duration, format_size};
use super::schema;

/// What may stand at a key.
pub trait KeyForm: Copy + Send + Sync + 'static {
    /// What it is read as.
    type Value<'a>;

    /// Reads it; what is wrong goes to the field.
    fn read<'a>(&self, field: &Field<'a>) -> Option<Self::Value<'a>>;

    /// Its JSON Schema.
    fn schema(&self, description: &str) -> Value;
}

/// A form of which a declaration can hold a value, as a default.
pub trait Valued: KeyForm {
    /// How the declaration holds it.
    type Constant: Copy + Send + Sync + 'static;

    /// The value.
    fn value<'a>(&self, constant: Self::Constant) -> Self::Value<'a>;

    /// The same as one would write it.
    fn shown(&self, constant: Self::Constant) -> String;
}

/// A text that is not empty.
#[derive(Clone, Copy, Debug)]
pub struct Text;

/// `true` or `false`.
#[derive(Clone, Copy, Debug)]
pub struct Flag;

/// An integer between two bounds.
#[derive(Clone, Copy, Debug)]
pub struct Number<T> {
    min: i64,
    max: i64,
    of: PhantomData<T>,
}

/// A duration with its unit.
#[derive(Clone, Copy, Debug)]
pub struct Period;

/// A size with its unit, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct ByteSize;

/// A text, `{ env = "NAME" }` or `{ file = "/path" }`.
#[derive(Clone, Copy, Debug)]
pub struct SecretText;

/// A path; a relative one starts at the directory of the file that names it.
#[derive(Clone, Copy, Debug)]
pub struct FilePath;

/// A list of texts.
#[derive(Clone, Copy, Debug)]
pub struct TextList;

/// One of some names.
#[derive(Clone, Copy, Debug)]
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

/// A table with known keys.
#[derive(Clone, Copy, Debug)]
pub struct SubTable(pub &'static Section);

/// A table whose keys are names; each entry is of the schema that is given.
#[derive(Clone, Copy, Debug)]
pub struct Entries(pub fn() -> Value);

/// Anything else: whoever asks for it reads the field. Its schema is made of its description.
#[derive(Clone, Copy, Debug)]
pub struct Other(pub fn(&str) -> Value);

/// Forms that are one method of [`Field`] and one function of the schema.
macro_rules! plain {
    ($($form:ident: $value:ty, $read:ident;)*) => {$(
        impl KeyForm for $form {
            type Value<'a> = $value;

            fn read<'a>(&self, field: &Field<'a>) -> Option<$value> {
                field.$read()
            }

            fn schema(&self, description: &str) -> Value {
                schema::$read(description)
            }
        }
    )*};
}

plain! {
    Text: String, text;
    Flag: bool, flag;
    Period: Duration, duration;
    ByteSize: u64, size;
    SecretText: Secret, secret;
    FilePath: PathBuf, file_path;
    TextList: Vec<String>, texts;
}

/// Forms of which a declaration can hold a value, and how one writes it.
macro_rules! valued {
    ($($form:ident: $constant:ty, $shown:expr;)*) => {$(
        impl Valued for $form {
            type Constant = $constant;

            fn value<'a>(&self, constant: $constant) -> Self::Value<'a> {
                constant.into()
            }

            fn shown(&self, constant: $constant) -> String {
                $shown(constant)
            }
        }
    )*};
}

valued! {
    Text: &'static str, str::to_owned;
    Flag: bool, |flag: bool| flag.to_string();
    Period: Duration, format_duration;
    ByteSize: u64, format_size;
}

impl<T> Number<T> {
    /// An integer from `min` to `max`; the schema tells editors the lower bound.
    pub const fn between(min: i64, max: i64) -> Self {
        Self { min, max, of: PhantomData }
    }

    /// An integer from `min`.
    pub const fn from(min: i64) -> Self {
        Self::between(min, i64::MAX)
    }
}

impl<T: TryFrom<i64> + Copy + Send + Sync + 'static> KeyForm for Number<T> {
    type Value<'a> = T;

    fn read<'a>(&self, field: &Field<'a>) -> Option<T> {
        field.number(self.min, self.max)
    }

    fn schema(&self, description: &str) -> Value {
        schema::integer(description, self.min)
    }
}

impl<T: TryFrom<i64> + Copy + Display + Send + Sync + 'static> Valued for Number<T> {
    type Constant = T;

    fn value<'a>(&self, constant: T) -> Self::Value<'a> {
        constant
    }

    fn shown(&self, constant: T) -> String {
        constant.to_string()
    }
}

impl<T: Copy + Send + Sync> KeyForm for Choice<T> {
    type Value<'a> = T;

    fn read<'a>(&self, field: &Field<'a>) -> Option<T> {
        field.choice(self.0)
    }

    fn schema(&self, description: &str) -> Value {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
        schema::choice(description, &names)
    }
}

impl<T: Copy + PartialEq + Send + Sync> Valued for Choice<T> {
    type Constant = T;

    fn value<'a>(&self, constant: T) -> Self::Value<'a> {
        constant
    }

    fn shown(&self, constant: T) -> String {
        self.name(constant).to_owned()
    }
}

impl<T: PartialEq> Choice<T> {
    /// The name of one of them.
    pub fn name(&self, value: T) -> &'static str {
        self.0.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| *name)
    }
}

impl KeyForm for SubTable {
    type Value<'a> = Reader<'a>;

    fn read<'a>(&self, field: &Field<'a>) -> Option<Reader<'a>> {
        field.table(self.0)
    }

    fn schema(&self, description: &str) -> Value {
        schema::refer(description, self.0.name)
    }
}

impl KeyForm for Entries {
    type Value<'a> = Vec<(&'a str, Field<'a>)>;

    fn read<'a>(&self, field: &Field<'a>) -> Option<Self::Value<'a>> {
        field.entries()
    }

    fn schema(&self, description: &str) -> Value {
        schema::named(description, &(self.0)())
    }
}

impl KeyForm for Other {
    type Value<'a> = Field<'a>;

    fn read<'a>(&self, field: &Field<'a>) -> Option<Field<'a>> {
        Some(field.clone())
    }

    fn schema(&self, description: &str) -> Value {
        (self.0)(description)
    }
}
