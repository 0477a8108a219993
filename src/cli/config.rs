//! `config`: the settings that count, and where each came from.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::settings::SettingArgs;
use crate::cli::text::{Align, Table};
use crate::config::layers::{Effective, Loaded, environment, load};
use crate::config::table::SETTINGS;

/// Print the settings that `serve` would run with
///
/// Takes the flags of `serve`, reads the same variables and the same file, and tells of each
/// setting its value and where it came from.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate config --config samestate.toml")]
pub struct ConfigArgs {
    #[command(flatten)]
    settings: SettingArgs,
}

/// Prints the settings.
///
/// # Errors
/// [`CliError::Config`] when they cannot be used.
pub fn run(args: &ConfigArgs, as_json: bool) -> Result<ExitCode, CliError> {
    let loaded = load(&args.settings.0, environment)?;
    let text = if as_json {
        json_text(&loaded)
    } else {
        table(&loaded)
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn table(loaded: &Loaded) -> String {
    let columns = [
        ("SETTING", Align::Left),
        ("VALUE", Align::Left),
        ("FROM", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for Effective {
        key,
        values,
        origin,
    } in &loaded.effective
    {
        let value = if values.is_empty() {
            "-".to_owned()
        } else {
            values.join(", ")
        };
        table.row([(*key).to_owned(), value, origin.to_string()]);
    }
    table.render()
}

fn json_text(loaded: &Loaded) -> String {
    let pairs = SETTINGS
        .iter()
        .zip(&loaded.effective)
        .map(|(setting, effective)| {
            let value = match (setting.repeats, effective.values.first()) {
                (true, _) => json!(effective.values),
                (false, first) => json!(first),
            };
            let origin = effective.origin.to_string();
            (
                setting.key.to_owned(),
                json!({"value": value, "from": origin}),
            )
        });
    Value::Object(pairs.collect::<Map<_, _>>()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::Flags;

    #[test]
    fn every_setting_is_shown_with_where_it_came_from() {
        let mut flags = Flags::default();
        flags
            .values
            .insert("peers", vec!["a=http://a".into(), "b=http://b".into()]);
        let loaded = load(&flags, |_| None).unwrap();
        let text = table(&loaded);
        assert_eq!(text.lines().count(), SETTINGS.len() + 1);
        let line = |key: &str| {
            text.lines()
                .find(|line| line.starts_with(key))
                .unwrap()
                .to_owned()
        };
        assert!(
            line("peers").contains("a=http://a, b=http://b") && line("peers").ends_with("--peer")
        );
        assert!(line("data").contains('-') && line("data").ends_with("default"));
        let json: Value = serde_json::from_str(&json_text(&loaded)).unwrap();
        assert_eq!(
            json["peers"],
            json!({"value": ["a=http://a", "b=http://b"], "from": "--peer"})
        );
        assert_eq!(json["data"], json!({"value": null, "from": "default"}));
        assert_eq!(json["cache_mib"]["value"], "96");
    }
}
