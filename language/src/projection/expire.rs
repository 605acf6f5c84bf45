//! `expire`: which rows the clock deletes, and what must hold so that it decides nothing else.
//!
//! All rows that an event touches must have the same moment. Then the horizon passes either all of them or none, and a row that it has
//! not passed is of events of which none was ever left alone, whenever they were folded.

use std::sync::Arc;

use foldline_api::column::ColumnType;
use foldline_api::expiry::Rule;
use foldline_api::model::Model;

use super::Projection;
use super::compile::Compiler;
use crate::expr::Expr;

impl Compiler<'_> {
    /// The rule, of a column that can be a moment.
    pub(super) fn expire(&mut self, model: &Model) -> Option<Rule> {
        let expire = self.config.expire.as_ref()?;
        let column = model.position(&expire.field)?;
        let at = model.key.iter().position(|key| *key == column)?;
        let ty = &model.columns.get(column)?.ty;
        if !matches!(ty, ColumnType::TimestampTz | ColumnType::Date) {
            let message = format!("{:?} is {ty}, which is no moment", expire.field);
            let help = Some("a key column of type timestamptz or date can expire".to_owned());
            self.problem(&self.path("expire.field"), message, help);
        }
        let after = i64::try_from(expire.after.as_millis()).unwrap_or(i64::MAX);
        if after == 0 {
            let help = Some("after = \"30d\"".to_owned());
            self.problem(&self.path("expire.after"), "must be at least a millisecond", help);
        }
        Some(Rule { field: Arc::from(&*expire.field), column, at, after })
    }

    /// An event may touch rows of several moments, by this handler.
    pub(super) fn several_moments(&mut self, handler: &str) {
        let message = format!(
            "{handler} may change rows of another moment by the same event, and what is bad in one of them would be bad in the \
             other until it has expired"
        );
        let help =
            "give each handler the same expression for the column, or split the projection in two";
        self.problem(&self.path("expire"), message, Some(help.to_owned()));
    }
}

impl Projection {
    /// By which rule the clock deletes its rows; none where it deletes none.
    #[must_use]
    pub fn rule(&self) -> Option<&Rule> {
        self.rule.as_ref()
    }

    /// Whether one event may touch rows of several moments, and where the config says so.
    pub(super) fn moments_of_one_event(&self) -> Option<String> {
        let rule = self.rule.as_ref()?;
        if self.has_one_key() {
            return None;
        }
        let moment = |key: &[Expr]| key.get(rule.at).map(|expr| expr.source().to_owned());
        let own = moment(&self.key);
        let other = self
            .handlers
            .iter()
            .find(|handler| handler.key.as_deref().is_some_and(|key| moment(key) != own));
        other.map(|handler| handler.label.clone())
    }
}
