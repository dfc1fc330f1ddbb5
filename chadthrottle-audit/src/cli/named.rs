//! Parses values with fixed names. Completions and man pages list them. The type itself words the error for a wrong
//! name.

use std::error::Error;
use std::ffi::OsStr;
use std::marker::PhantomData;
use std::str::FromStr;

use auditor::judge::Finding;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command};
use kernel::AttachType;

use crate::explain::summary;

/// A type whose values are named.
pub(super) trait Named: FromStr + Clone + Send + Sync + 'static {
    /// Returns all values of the type.
    fn values() -> Vec<PossibleValue>;
}

impl Named for AttachType {
    fn values() -> Vec<PossibleValue> {
        Self::all().map(|it| PossibleValue::new(it.name())).collect()
    }
}

impl Named for Finding {
    fn values() -> Vec<PossibleValue> {
        Self::ALL.map(|it| PossibleValue::new(it.name()).help(summary(it))).into()
    }
}

/// Parses a value by its name.
#[derive(Debug, Clone)]
pub(super) struct ByName<T>(PhantomData<T>);

impl<T> ByName<T> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Named> TypedValueParser for ByName<T>
where
    T::Err: Error + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        option: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let by_name = StringValueParser::new().try_map(|name: String| name.parse::<T>());
        by_name.parse_ref(command, option, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(T::values().into_iter()))
    }
}
