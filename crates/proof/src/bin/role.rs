//! All parts of the tests in this package but the tests' own: they find it by its name.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    uffd_proof::roles::play(&args).unwrap_or_else(|| {
        eprintln!("usage: uffd-proof-role guest|attacker|handler|keeper|drain|relay ...");
        ExitCode::from(2)
    })
}
