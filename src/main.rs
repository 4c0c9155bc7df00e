//! Arguments → window or command → exit code.

fn main() -> std::process::ExitCode {
    galley::cli::main()
}
