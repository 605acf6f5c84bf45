//! The functions of the language: CEL's own, its extensions for strings, lists and math, and
//! Foldline's.

mod convert;
mod format;
mod lists;
mod math;
mod strings;
mod time;

use super::node::{Form, Function};

fn all() -> impl Iterator<Item = &'static Function> {
    [convert::TABLE, strings::TABLE, lists::TABLE, math::TABLE, time::TABLE].into_iter().flatten()
}

/// The function that a call means: its name (`math.abs` with its space), whether it is called on a
/// receiver, and its arguments with the receiver.
pub(super) fn find(name: &str, member: bool, args: usize) -> Option<&'static Function> {
    all().find(|function| {
        function.name == name
            && function.takes.0 <= args
            && args <= function.takes.1
            && match function.form {
                Form::Global => !member,
                Form::Member => member,
                Form::Either => true,
            }
    })
}

/// The functions of that name, however they are called.
pub(super) fn named(name: &str) -> impl Iterator<Item = &'static Function> + use<'_> {
    all().filter(move |function| function.name == name)
}

/// The names of all functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    all().map(|function| function.name)
}

pub(super) use convert::type_named;
pub(super) use strings::pattern;
