//! `foldline clean`: shows what a removed connector left, asks, and removes it.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use foldline_api::removal::Keep;

use super::{Failure, load, runtime};
use crate::clean::look;
use crate::config::process_env;
use crate::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The connector, which the config has no more.
    name: String,
    /// Leave the live table or index with its rows: it is yours then, and no connector's.
    #[arg(long)]
    keep_rows: bool,
    /// Remove it without a question.
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &Args, path: PathBuf) -> Result<(), Failure> {
    crate::log::start("warn");
    let config = load(path, &process_env())?;
    runtime()?.block_on(async {
        let left = look(&config, &args.name).await.map_err(Failure::failed)?;
        println!("{}", printable::lines(&left.to_string()));
        if args.keep_rows {
            println!("The live rows stay (--keep-rows).");
        }
        if !args.yes && !agreed(&args.name)? {
            return Err(Failure::Failed("nothing was removed".to_owned()));
        }
        let keep = if args.keep_rows { Keep::Live } else { Keep::Nothing };
        let told = |line: String| println!("{}", printable::lines(&line));
        left.remove(&config, keep, told).await.map_err(Failure::failed)
    })
}

/// Whether whoever sits there types the connector's name.
fn agreed(name: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Failed(
            "nobody can be asked here: `--yes` removes it, for good".to_owned(),
        ));
    }
    print!("This removes it for good. Type the connector's name to go on: ");
    let mut typed = String::new();
    let asked = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut typed));
    asked.map_err(Failure::failed)?;
    Ok(typed.trim() == name)
}
