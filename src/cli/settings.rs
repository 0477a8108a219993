//! The flags of a server: one for each row of the table of settings, and `--config`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};

use crate::config::layers::Flags;
use crate::config::table::SETTINGS;

const CONFIG: &str = "config";

/// What the command line says about settings. Values are checked with those of the other layers.
#[derive(Debug, Clone, Default)]
pub struct SettingArgs(pub Flags);

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Settings file (TOML) [env: SAMESTATE_CONFIG]");
        SETTINGS
            .iter()
            .fold(command.arg(config), |command, setting| {
                let action = if setting.repeats {
                    ArgAction::Append
                } else {
                    ArgAction::Set
                };
                let default = setting
                    .default
                    .map(|default| format!(" [default: {default}]"));
                let help = format!(
                    "{}{} [env: {}]",
                    setting.help,
                    default.unwrap_or_default(),
                    setting.variable()
                );
                let arg = Arg::new(setting.key).long(setting.flag).action(action);
                // So that -5 is told to be out of range, and not to be a flag.
                let arg = arg.allow_negative_numbers(true);
                command.arg(arg.value_name(setting.value_name).help(help))
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let values = SETTINGS.iter().filter_map(|setting| {
            let given = matches.get_many::<String>(setting.key)?;
            Some((setting.key, given.cloned().collect()))
        });
        Ok(Self(Flags {
            file: matches.get_one::<PathBuf>(CONFIG).cloned(),
            values: values.collect(),
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
