//! The flags of `linger serve`, made from the settings' one declaration.
//!
//! Only clap calls this. It keeps the texts as they were given: what is allowed is decided where texts from
//! the environment and the file are judged too.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::{CONFIG_ENV, SETTINGS, Setting, env_name};

const CONFIG_FLAG: &str = "config";

/// What the command line says of the settings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    config: Option<PathBuf>,
    texts: BTreeMap<&'static str, OsString>,
}

impl Flags {
    /// The configuration file.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// What was given for a key; several values with commas between.
    pub(super) fn text(&self, key: &str) -> Option<OsString> {
        self.texts.get(key).cloned()
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG_FLAG)
            .long(CONFIG_FLAG)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(format!("TOML file whose keys are these options' names [env: {CONFIG_ENV}]"));
        command.arg(config).args(SETTINGS.iter().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let mut flags = Flags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        if let Some(path) = matches.get_one::<PathBuf>(CONFIG_FLAG) {
            self.config = Some(path.clone());
        }
        for setting in SETTINGS {
            if let Some(values) = matches.get_many::<OsString>(setting.key) {
                let values: Vec<&OsStr> = values.map(OsString::as_os_str).collect();
                self.texts.insert(setting.key, values.join(OsStr::new(",")));
            }
        }
        Ok(())
    }
}

fn arg(setting: &Setting) -> Arg {
    let help = setting.help.trim().trim_end_matches('.');
    let (default, env) = (setting.default, env_name(setting.key));
    let action = if (setting.is_list)() { ArgAction::Append } else { ArgAction::Set };
    Arg::new(setting.key)
        .long(setting.key)
        .value_name(setting.value_name)
        .action(action)
        .value_parser(value_parser!(OsString))
        .allow_hyphen_values(true)
        .help(format!("{help} [default: {default}] [env: {env}]"))
        .long_help(format!("{help}.\nAllowed: {}.\n[default: {default}] [env: {env}]", (setting.allowed)()))
}
