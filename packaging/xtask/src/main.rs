//! The project's own tasks: `cargo xtask TASK`.

use std::process::ExitCode;

mod bench;
mod captures;
mod deb;
mod docs;
mod lab;
mod schema;
mod shell;
mod test;

const USAGE: &str = "\
usage: cargo xtask TASK

  test [--quick] [FILTER]
                        everything a change must pass; installs the Debian packages the tests need (as root).
                        With --quick without the emulated hosts of tests/lab
  bench [--keep DIR]    what a dry run costs, next to a program that only reads the same files
  deb [--profile NAME]  build the Debian package of this tree, static, in target/deb
  lab VERB              a real host, emulated: `cargo xtask lab help`
  docs [--check]        write what docs/ has from the program itself; with --check only compare
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match args.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("", &[][..]),
    };
    let result = match task {
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "deb" => deb::run(rest),
        "docs" => docs::run(rest),
        "lab" => lab::run(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("error: `{task}` is not a task\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
