//! A key of a table, declared once: its name, what may stand there, what it is where it is left out, and what it is for. The
//! reader, the JSON Schema and the reference page have it from here.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::form::{KeyForm, Valued};
use super::reader::Field;
use super::schema::object;

/// What else must hold of a value; what is wrong goes to the field.
pub type Check<F> = for<'a> fn(&Field<'a>, &<F as KeyForm>::Value<'a>);

/// One key. `P` says what it is where it is left out.
pub struct Key<F: KeyForm, P = Optional> {
    /// Its name.
    pub name: &'static str,
    form: F,
    /// What it is for: a sentence without its full stop, as a default may follow.
    doc: &'static str,
    presence: P,
    check: Option<Check<F>>,
}

/// A key that may be left out.
#[derive(Clone, Copy, Debug)]
pub struct Optional;

/// A key that must be there, with the example that one sees who left it out.
#[derive(Clone, Copy, Debug)]
pub struct Required(&'static str);

/// A key that is this where it is left out.
#[derive(Clone, Copy, Debug)]
pub struct Or<C>(C);

impl<F: KeyForm> Key<F> {
    /// A key that may be left out.
    pub const fn new(name: &'static str, form: F, doc: &'static str) -> Self {
        Self { name, form, doc, presence: Optional, check: None }
    }

    /// The same key, but it must be there.
    #[must_use]
    pub const fn required(self, example: &'static str) -> Key<F, Required> {
        let Self { name, form, doc, check, .. } = self;
        Key { name, form, doc, presence: Required(example), check }
    }
}

impl<F: Valued> Key<F> {
    /// The same key with a default.
    #[must_use]
    pub const fn or(self, default: F::Constant) -> Key<F, Or<F::Constant>> {
        let Self { name, form, doc, check, .. } = self;
        Key { name, form, doc, presence: Or(default), check }
    }
}

impl<F: Valued> Key<F, Or<F::Constant>> {
    /// What it is where it is left out.
    pub fn default<'a>(&self) -> F::Value<'a> {
        self.form.value(self.presence.0)
    }
}

impl<F: KeyForm, P: Presence<F>> Key<F, P> {
    /// The same key, of which more must hold.
    #[must_use]
    pub const fn checked(self, check: Check<F>) -> Self
    where
        P: Copy,
    {
        let Self { name, form, doc, presence, .. } = self;
        Self { name, form, doc, presence, check: Some(check) }
    }

    /// What stands there, checked.
    pub(super) fn read<'a>(&self, field: &Field<'a>) -> Option<F::Value<'a>> {
        let value = self.form.read(field)?;
        if let Some(check) = self.check {
            check(field, &value);
        }
        Some(value)
    }

    pub(super) fn settle<'a>(&self, found: Option<F::Value<'a>>) -> P::Out<'a> {
        self.presence.settle(&self.form, found)
    }

    pub(super) fn example(&self) -> Option<&'static str> {
        self.presence.example()
    }
}

/// What a key is where it is left out.
pub trait Presence<F: KeyForm>: Send + Sync + 'static {
    /// What a reader hands out.
    type Out<'a>;

    /// From what was found to what is handed out.
    fn settle<'a>(&self, form: &F, found: Option<F::Value<'a>>) -> Self::Out<'a>;

    /// What one could write who left it out and must not.
    fn example(&self) -> Option<&'static str> {
        None
    }

    /// Its default, as one would write it.
    fn shown(&self, _form: &F) -> Option<String> {
        None
    }
}

impl<F: KeyForm> Presence<F> for Optional {
    type Out<'a> = Option<F::Value<'a>>;

    fn settle<'a>(&self, _form: &F, found: Option<F::Value<'a>>) -> Self::Out<'a> {
        found
    }
}

impl<F: KeyForm> Presence<F> for Required {
    type Out<'a> = Option<F::Value<'a>>;

    fn settle<'a>(&self, _form: &F, found: Option<F::Value<'a>>) -> Self::Out<'a> {
        found
    }

    fn example(&self) -> Option<&'static str> {
        Some(self.0)
    }
}

impl<F: Valued> Presence<F> for Or<F::Constant> {
    type Out<'a> = F::Value<'a>;

    fn settle<'a>(&self, form: &F, found: Option<F::Value<'a>>) -> Self::Out<'a> {
        found.unwrap_or_else(|| form.value(self.0))
    }

    fn shown(&self, form: &F) -> Option<String> {
        Some(form.shown(self.0))
    }
}

/// A key as the JSON Schema has it.
pub trait Declared: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Whether it must be there.
    fn is_required(&self) -> bool;
    /// What it is where it is left out, as one would write it.
    fn default(&self) -> Option<String>;
    /// What it is for: a sentence without its full stop.
    fn doc(&self) -> &'static str;
    /// What may stand there, and what it is for.
    fn schema(&self) -> Value;
}

impl<F: KeyForm, P: Presence<F>> Declared for Key<F, P> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_required(&self) -> bool {
        self.example().is_some()
    }

    fn default(&self) -> Option<String> {
        self.presence.shown(&self.form)
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn schema(&self) -> Value {
        let doc = self.doc;
        self.form.schema(&match self.presence.shown(&self.form) {
            Some(default) => format!("{doc}; by default {default}."),
            None => format!("{doc}."),
        })
    }
}

impl fmt::Debug for dyn Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The keys of a table.
pub type Keys = &'static [&'static dyn Declared];

/// A table with known keys: a definition of the JSON Schema.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The definition's name.
    pub name: &'static str,
    /// What the table is.
    pub doc: &'static str,
    /// Its keys.
    pub keys: Keys,
}

impl Section {
    /// Its definition.
    pub fn schema(&self) -> Value {
        let keys: Vec<_> = self.keys.iter().map(|key| (key.name(), key.schema())).collect();
        object(self.doc, &required(self.keys), &keys)
    }
}

impl From<&Section> for Cow<'static, str> {
    fn from(section: &Section) -> Self {
        Self::Borrowed(section.name)
    }
}

/// Those that must be there.
pub(super) fn required(keys: Keys) -> Vec<&'static str> {
    keys.iter().filter(|key| key.is_required()).map(|key| key.name()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::env::Env;
    use crate::config::form::{Period, Text};
    use crate::config::reader::{Context, Reader};
    use crate::config::tree::{At, parse};

    const WAIT: Key<Period, Or<Duration>> =
        Key::new("wait", Period, "How long it waits").or(Duration::from_secs(90));
    const NAME: Key<Text, Required> =
        Key::new("name", Text, "What it is called").required("\"a\"").checked(|field, name| {
            if name.len() > 3 {
                field.problem("is too long");
            }
        });

    fn read(text: &str) -> (Duration, Option<String>, Vec<String>) {
        let env = Env::default();
        let cx = Context::new(&env);
        let file = Arc::from("c.toml");
        let tree = parse(&file, text).unwrap();
        let mut reader = Reader::new(&cx, "test", String::new(), At { file, line: None }, &tree);
        let (wait, name) = (reader.read(&WAIT), reader.read(&NAME));
        reader.finish();
        (wait, name, cx.into_parts().0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_key_is_read_as_it_is_declared() {
        let missing = "c.toml: `name` is missing\n  help: name = \"a\"".to_owned();
        assert_eq!(read(""), (Duration::from_secs(90), None, vec![missing]));
        let (wait, name, problems) = read("wait = '2m'\nname = 'abc'");
        assert_eq!((wait, name.as_deref()), (Duration::from_secs(120), Some("abc")));
        assert_eq!(problems, [""; 0]);
        let (wait, _, problems) = read("wait = '2'\nname = 'abcd'");
        assert_eq!(wait, Duration::from_secs(90));
        assert!(problems[0].contains("wait: found the text \"2\", expected a duration"));
        assert_eq!(problems[1], "c.toml:2: name: is too long");
    }

    #[test]
    fn the_schema_says_what_is_declared() {
        let schema = Section { name: "test", doc: "A test.", keys: &[&WAIT, &NAME] }.schema();
        assert_eq!(schema["required"], serde_json::json!(["name"]));
        let doc = schema["properties"]["wait"]["description"].as_str().unwrap();
        assert!(doc.starts_with("How long it waits; by default 90s. "), "{doc}");
        assert_eq!(schema["properties"]["name"]["description"], "What it is called.");
    }
}
