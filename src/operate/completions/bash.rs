//! bash, which splits words also at `:` and `=`: an address, or `--cluster=prod`, comes in three words, and only the
//! last of them is replaced.

use std::{ffi::OsString, io, path::Path};

use clap::Command;
use clap_complete::{
    engine,
    env::{Bash, EnvCompleter},
};

use crate::operate::completions::typed::joined;

/// The script of `clap_complete`, whose words are put together again.
pub(super) struct SplittingBash;

impl EnvCompleter for SplittingBash {
    fn name(&self) -> &'static str {
        Bash.name()
    }

    fn is(&self, name: &str) -> bool {
        Bash.is(name)
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        out: &mut dyn io::Write,
    ) -> Result<(), io::Error> {
        Bash.write_registration(var, name, bin, completer, out)
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn io::Write,
    ) -> Result<(), io::Error> {
        let said = |name: &str| std::env::var(name).ok();
        let index = said("_CLAP_COMPLETE_INDEX").and_then(|index| index.parse().ok()).unwrap_or_default();
        let between = said("_CLAP_IFS").unwrap_or_else(|| "\n".to_owned());
        let (words, index, kept) = joined(&words, index);
        let found = engine::complete(command, words, index, folder)?;
        let texts = found.iter().filter_map(|one| one.get_value().to_str()?.get(kept..));
        write!(out, "{}", texts.collect::<Vec<_>>().join(&between))
    }
}
