//! Collects the descriptions of the API's types and fields, which OpenAPI and `kubectl
//! explain` show, out of the `k8s-openapi` crate's sources into one compressed file.
//!
//! The crate carries them as documentation of its Rust types; compiling them in as code
//! (its `schemars` feature) would cost a second build of all types and their residency at
//! run time. What comes out: `descriptions.bin`, one deflated text per package, and
//! `descriptions.rs`, the index.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// Must be the version that `k8s-openapi`'s feature selects.
const MODULE: &str = "src/v1_36";
const DEFINITION: &str = "// Generated from definition ";

/// By field; the empty name is the type itself.
type Texts = BTreeMap<String, String>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let mut packages: BTreeMap<String, BTreeMap<String, Texts>> = BTreeMap::new();
    let mut files = Vec::new();
    collect(&sources()?.join(MODULE), &mut files)?;
    for file in files {
        let source = fs::read_to_string(&file)?;
        if let Some((model, texts)) = read(&source)
            && let Some((package, name)) = model.rsplit_once('.')
        {
            let types = packages.entry(package.to_owned()).or_default();
            types.insert(name.to_owned(), texts);
        }
    }
    if packages.len() < 30 {
        return Err(format!(
            "only {} packages described: have the sources changed?",
            packages.len()
        )
        .into());
    }

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut blob = Vec::new();
    let mut index = String::from("pub static PACKAGES: &[(&str, usize, usize)] = &[\n");
    for (package, types) in &packages {
        let mut text = String::new();
        for (name, texts) in types {
            // Information separators: no description has them.
            text.push('\x1d');
            text.push_str(name);
            for (field, description) in texts {
                text.push('\x1e');
                text.push_str(field);
                text.push('\x1f');
                text.push_str(description);
            }
        }
        let start = blob.len();
        let mut encoder = DeflateEncoder::new(&mut blob, Compression::best());
        encoder.write_all(text.as_bytes())?;
        encoder.finish()?;
        index.push_str(&format!("    ({package:?}, {start}, {}),\n", blob.len()));
    }
    index.push_str("];\n");
    fs::write(out.join("descriptions.bin"), blob)?;
    fs::write(out.join("descriptions.rs"), index)?;
    Ok(())
}

/// Where cargo keeps the crate's sources: in its registry, vendored, or wherever else.
fn sources() -> Result<PathBuf, Box<dyn Error>> {
    let output = Command::new(env::var("CARGO")?)
        // Of the workspace, cargo has only got what is being built; the rest it gets now.
        .args(["metadata", "--format-version=1", "--locked"])
        // Without it, the packages of every other platform would be got too.
        .args(["--filter-platform", &env::var("TARGET")?])
        .arg("--manifest-path")
        .arg(Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml"))
        .output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata: {error}").into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|package| package["name"] == "k8s-openapi")
        .find_map(|package| package["manifest_path"].as_str())
        .ok_or("k8s-openapi is no dependency")?;
    Ok(Path::new(manifest)
        .parent()
        .ok_or("no directory")?
        .to_owned())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The model name and the texts of one source file. They are taken from the `JsonSchema`
/// implementation, which knows the fields' JSON names.
fn read(source: &str) -> Option<(String, Texts)> {
    let mut lines = source.lines();
    let model = lines.find_map(|l| l.strip_prefix(DEFINITION))?;
    let mut texts = Texts::new();
    let mut lines = lines.skip_while(|l| !l.contains("json_schema!({"));
    lines.next()?;
    let mut in_properties = false;
    let mut field = String::new();
    for line in lines {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        match indent {
            12 => {
                in_properties = line.starts_with("\"properties\"");
                field.clear();
            }
            16 if in_properties => {
                if let Some((name, _)) = line.strip_prefix('"').and_then(|l| l.split_once('"')) {
                    field = name.to_owned();
                }
            }
            _ => {}
        }
        let text = line.strip_prefix("\"description\": ").or_else(|| {
            line.split_once("insert(\"description\".into(), ")
                .map(|(_, t)| t)
        });
        if let Some(text) = text.and_then(literal) {
            texts.entry(field.clone()).or_insert(text);
        }
        if indent < 8 && line.starts_with('}') {
            break;
        }
    }
    Some((model.to_owned(), texts))
}

/// The value of the Rust string literal at the start of `text`.
fn literal(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut out = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'u' => {
                    let code: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}
