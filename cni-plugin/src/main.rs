//! The process: input from the runtime, the answer to it, and the exit status.

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use cni_plugin::config::{self, CniVersion};
use cni_plugin::invocation::{Environment, Invocation, InvocationError};
use cni_plugin::journal::Journal;
use cni_plugin::reply::{self, Failure};

/// No runtime sends more; it keeps a mistake from filling the memory.
const MAX_STDIN: u64 = 4 * 1024 * 1024;

fn main() -> ExitCode {
    let stdin = read_stdin();
    let newest = CniVersion::NEWEST;
    let cni_version = stdin.as_deref().map_or(newest, config::version_for_errors);
    let invocation = Invocation::parse(&environment(), stdin);
    let journal = invocation.as_ref().map_or_else(|_| Journal::of_nobody(), Journal::of);
    let answered =
        invocation.map_err(Failure::from).and_then(|asked| cni_plugin::answer(asked, &journal));
    let (text, code) = match answered {
        Ok(answer) => (answer.render(), ExitCode::SUCCESS),
        Err(failure) => {
            journal.say(&failure);
            (failure.render(cni_version), ExitCode::FAILURE)
        }
    };
    match reply::print(&text) {
        Ok(()) => code,
        Err(error) => {
            journal.say(format_args!("write the answer to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the environment is the plugin's input")]
fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("CNI_"))
        .collect()
}

fn read_stdin() -> Result<Vec<u8>, InvocationError> {
    let mut input = Vec::new();
    // Whoever types the command by hand shall get an answer, not a silent wait.
    if !io::stdin().is_terminal() {
        let limited = &mut io::stdin().lock().take(MAX_STDIN + 1);
        limited.read_to_end(&mut input).map_err(InvocationError::ReadStdin)?;
    }
    if input.len() as u64 > MAX_STDIN {
        return Err(InvocationError::ReadStdin(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(input)
}
