//! Builds the Metal kernels as a C++ program and runs operations' programs on it.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use galley::ops::metal::{self, Factor, Launch, Place, Product, Program, Slot, Step};

/// The names of the kernels, as the source has them.
pub fn kernel_names() -> Vec<&'static str> {
    let after = metal::SOURCE.split("kernel void ").skip(1);
    after.map(|text| text.split('(').next().unwrap()).collect()
}

/// A running shim. It ends with an error as soon as a kernel does anything undefined.
pub struct Shim {
    child: Child,
}

impl Shim {
    /// `None`, after saying so, where there is no C++ compiler; in CI that is a failure.
    pub fn start() -> Option<Self> {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        if Command::new(&compiler).arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI needs a C++ compiler (Debian: g++)");
            eprintln!("skipped: no C++ compiler (Debian: g++)");
            return None;
        }
        let mut command = Command::new(built(&compiler));
        // There is nothing to leak, and the search for leaks does not work under a debugger or in some containers.
        command.env("ASAN_OPTIONS", "detect_leaks=0").stdin(Stdio::piped()).stdout(Stdio::piped());
        Some(Self { child: command.spawn().unwrap() })
    }

    /// The program's result for `inputs`.
    pub fn run(&mut self, program: &Program, inputs: &[&[f32]]) -> Vec<f32> {
        self.run_over(program, inputs, None)
    }

    /// What a program makes of `output`, which it works on in place.
    pub fn run_in_place(&mut self, program: &Program, inputs: &[&[f32]], output: &[f32]) -> Vec<f32> {
        self.run_over(program, inputs, Some(output))
    }

    fn run_over(&mut self, program: &Program, inputs: &[&[f32]], output: Option<&[f32]>) -> Vec<f32> {
        assert_eq!(
            inputs.iter().map(|input| input.len()).collect::<Vec<_>>(),
            program.inputs,
            "inputs fit the program"
        );
        let length: usize = program.output.iter().product();
        assert!(output.is_none_or(|output| output.len() == length), "the output fits the program");
        let mut words = vec![(inputs.len() + 1 + program.scratch.len()) as u32];
        for given in inputs.iter().copied().chain(output) {
            words.extend([given.len() as u32, 1]);
            words.extend(bits(given));
        }
        let empty = output.is_none().then_some(&length).into_iter().chain(&program.scratch);
        words.extend(empty.flat_map(|&length| [length as u32, 0]));
        words.push(program.steps.len() as u32);
        program.steps.iter().for_each(|step| encode(&mut words, program, step));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(&bytes).and_then(|()| stdin.flush()).expect("the shim takes a program");
        for input in inputs {
            assert!(bits(&self.read(input.len())).eq(bits(input)), "inputs stay as they are");
        }
        let result = self.read(length);
        program.scratch.iter().for_each(|&length| drop(self.read(length)));
        result
    }

    fn read(&mut self, length: usize) -> Vec<f32> {
        let mut bytes = vec![0; length * size_of::<f32>()];
        self.child.stdout.as_mut().unwrap().read_exact(&mut bytes).expect("the shim answers; its error is above");
        bytes.chunks_exact(4).map(|word| f32::from_ne_bytes(word.try_into().unwrap())).collect()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

fn bits(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().map(|value| value.to_bits())
}

/// As `main.cpp` describes it.
fn encode(words: &mut Vec<u32>, program: &Program, step: &Step) {
    let index = |slot: Slot| match slot {
        Slot::Input(index) => index as u32,
        Slot::Output => program.inputs.len() as u32,
        Slot::Scratch(index) => (program.inputs.len() + 1 + index) as u32,
    };
    let place = |place: Place| [index(place.slot), place.offset as u32];
    match step {
        Step::Launch(Launch { kernel, parameters, grid, reads, writes }) => {
            let kernel = kernel_names().iter().position(|name| name == kernel);
            words.extend([0, kernel.expect("the kernel is in the source") as u32, parameters.len() as u32]);
            words.extend(parameters);
            words.extend(grid.map(|side| side as u32));
            words.push((reads.len() + writes.len()) as u32);
            words.extend(reads.iter().chain(writes).flat_map(|&each| place(each)));
        }
        Step::Product(Product { parts, rows, columns, depth, left, right, result }) => {
            words.push(1);
            words.extend([parts, rows, columns, depth].map(|&number| number as u32));
            for Factor { place: at, transposed, part_stride } in [left, right] {
                words.extend(place(*at));
                words.extend([u32::from(*transposed), *part_stride as u32]);
            }
            words.push(index(*result));
        }
    }
}

/// The shim's executable, made once for each state of its sources.
fn built(compiler: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = root.join("tests/metal-shim");
    let (kernels, layouts) = generated();
    let read = |name: &str| std::fs::read_to_string(sources.join(name)).unwrap();
    let mut hasher = DefaultHasher::new();
    (compiler, metal::SOURCE, read("main.cpp"), read("metal_stdlib"), &kernels, &layouts).hash(&mut hasher);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let executable = target.join(format!("metal-shim-{:016x}", hasher.finish()));
    if executable.exists() {
        return executable;
    }
    let folder = tempfile::tempdir_in(target).unwrap();
    std::fs::write(folder.path().join("kernels.metal"), metal::SOURCE).unwrap();
    std::fs::write(folder.path().join("kernels.inc"), kernels).unwrap();
    std::fs::write(folder.path().join("layouts.inc"), layouts).unwrap();
    let output = Command::new(compiler)
        .args(["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Wno-attributes", "-Wno-unknown-attributes"])
        .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-ffp-contract=off"])
        .args(["-DKERNELS=\"kernels.metal\"", "-o", "shim", "-I.", "-I"])
        .args([&sources, &sources.join("main.cpp")])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "the kernels compile as C++:\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "without a warning:\n{}", String::from_utf8_lossy(&output.stderr));
    // Tests build it at the same time: each renames its own into place.
    std::fs::rename(folder.path().join("shim"), &executable).unwrap();
    executable
}

/// The table of kernels, and the parameter structs' layouts as static assertions.
fn generated() -> (String, String) {
    let kernels = kernel_names().iter().map(|name| format!("KERNEL({name})\n")).collect();
    let mut layouts = String::new();
    for metal::Layout { name, size, fields } in [metal::Windows::LAYOUT, metal::Rows::LAYOUT, metal::Update::LAYOUT] {
        writeln!(layouts, "static_assert(sizeof({name}) == {size}, \"size of {name}\");").unwrap();
        for (field, offset) in fields {
            writeln!(layouts, "static_assert(offsetof({name}, {field}) == {offset}, \"{name}.{field}\");").unwrap();
        }
    }
    (kernels, layouts)
}
