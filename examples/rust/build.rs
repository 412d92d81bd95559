//! Compiles c/mm.c, the one file with the headers' implementations, with the C compiler named by CC,
//! and makes a library of it. No crate is needed for that.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{command:?}: {status}"),
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let headers = here.join("../..");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let source = here.join("c/mm.c");
    let object = out.join("mm.o");
    let library = out.join("libmm.a");
    let debug = env::var("DEBUG").map_or(false, |d| d != "false");

    run(Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-std=c11", "-O2", "-ffreestanding", "-fPIC", "-Wall", "-Wextra", "-Werror", "-c"])
        .args(debug.then_some("-g"))
        .arg("-I")
        .arg(&headers)
        .arg("-o")
        .arg(&object)
        .arg(&source));
    let _ = std::fs::remove_file(&library);
    run(Command::new(env::var_os("AR").unwrap_or_else(|| "ar".into()))
        .arg("crs")
        .arg(&library)
        .arg(&object));

    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=mm");
    println!("cargo:rerun-if-changed={}", source.display());
    for header in ["mm_frame.h", "mm_buddy.h", "mm_slab.h"] {
        println!("cargo:rerun-if-changed={}", headers.join(header).display());
    }
    println!("cargo:rerun-if-env-changed=CC");
    println!("cargo:rerun-if-env-changed=AR");
}
