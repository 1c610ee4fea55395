//! The `tapline` command.

fn main() -> std::process::ExitCode {
    tapline::cli::main()
}
