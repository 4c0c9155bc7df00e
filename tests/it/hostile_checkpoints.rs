//! Checkpoints made to do harm: each is an error that names the file, found without a panic or a large allocation.

use std::path::Path;
use std::process::Command;

use galley::checkpoint::Checkpoint;
use galley::memory::heap;

/// Set for the process that measures the heap, which runs one test alone.
const MEASURING: &str = "GALLEY_TEST_MEASURES_HEAP";

/// Opens and reads everything, as loading a network would.
fn read_all(name: &str, bytes: Vec<u8>) -> Result<usize, String> {
    let checkpoint = Checkpoint::from_bytes(name, bytes).map_err(|error| error.to_string())?;
    let names = checkpoint.tensors().iter().map(|tensor| &tensor.name);
    names.map(|name| checkpoint.read_f32(name).map(|values| values.len()).map_err(|error| error.to_string())).sum()
}

fn assert_refused(name: &str, bytes: Vec<u8>) {
    let allowed = 32_000_000 + 100 * bytes.len() as u64;
    let before = heap::live();
    heap::reset_peak();
    let error = read_all(name, bytes).expect_err(name);
    let grown = heap::peak().saturating_sub(before);
    assert!(error.contains(name), "{error}");
    assert!(std::env::var_os(MEASURING).is_none() || grown <= allowed, "{name} took {grown} bytes of heap");
}

// ---- pickles ----

fn text(value: &str) -> Vec<u8> {
    [b"X", &(value.len() as u32).to_le_bytes()[..], value.as_bytes()].concat()
}

fn int(value: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &value.to_le_bytes()].concat()
}

fn tuple(members: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &members.concat()[..], b"t"].concat()
}

fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().flat_map(|(key, value)| [text(key), value.clone()]).collect();
    [b"}(", &entries.concat()[..], b"u"].concat()
}

fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

fn tensor_of(class: &str, key: &str, elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let sizes = |sizes: &[i64]| tuple(&sizes.iter().map(|size| int(*size)).collect::<Vec<_>>());
    let class = format!("ctorch\n{class}\n").into_bytes();
    let storage = [tuple(&[text("storage"), class, text(key), text("cpu"), int(elements)]), b"Q".to_vec()].concat();
    let arguments = tuple(&[storage, int(offset), sizes(shape), sizes(strides), b"\x89".to_vec(), b"}".to_vec()]);
    [b"ctorch._utils\n_rebuild_tensor_v2\n", &arguments[..], b"R"].concat()
}

fn tensor(elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    tensor_of("FloatStorage", "0", elements, offset, shape, strides)
}

/// Four floats in a storage of four.
fn sound() -> Vec<u8> {
    tensor(4, 0, &[2, 2], &[2, 1])
}

// ---- zip ----

struct Entry {
    name: String,
    content: Vec<u8>,
    method: u16,
    flags: u16,
    /// What the directory says instead of the true values.
    claimed_bytes: Option<u32>,
    claimed_offset: Option<u32>,
}

fn entry(name: &str, content: &[u8]) -> Entry {
    Entry {
        name: name.to_owned(),
        content: content.to_vec(),
        method: 0,
        flags: 0,
        claimed_bytes: None,
        claimed_offset: None,
    }
}

fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = entry.claimed_offset.unwrap_or(archive.len() as u32);
        let bytes = entry.claimed_bytes.unwrap_or(entry.content.len() as u32);
        let sizes = [0u32.to_le_bytes(), bytes.to_le_bytes(), bytes.to_le_bytes()].concat();
        let name_len = (entry.name.len() as u16).to_le_bytes();
        let kind = [entry.flags.to_le_bytes(), entry.method.to_le_bytes(), [0; 2], [0; 2]].concat();
        archive.extend([b"PK\x03\x04\x14\0", &kind[..], &sizes, &name_len, &[0; 2], entry.name.as_bytes()].concat());
        archive.extend(&entry.content);
        directory.extend([b"PK\x01\x02\x14\0\x14\0", &kind[..], &sizes, &name_len, &[0; 12]].concat());
        directory.extend([&offset.to_le_bytes()[..], entry.name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let place = [(directory.len() as u32).to_le_bytes(), (archive.len() as u32).to_le_bytes()].concat();
    [archive, directory, [b"PK\x05\x06\0\0\0\0", &count[..], &count, &place, &[0; 2]].concat()].concat()
}

/// A file as `torch.save` makes it, with one storage of four floats.
fn pth(value: &[u8]) -> Vec<u8> {
    pth_with(value, &[1.0, 2.0, 3.0, 4.0])
}

fn pth_with(value: &[u8], storage: &[f32]) -> Vec<u8> {
    let storage: Vec<u8> = storage.iter().flat_map(|value| value.to_le_bytes()).collect();
    zip(&[entry("x/data.pkl", &pickle(value)), entry("x/byteorder", b"little"), entry("x/data/0", &storage)])
}

/// The sound file with one of its entries changed.
fn changed(position: usize, change: impl FnOnce(&mut Entry)) -> Vec<u8> {
    let storage: Vec<u8> = [1f32; 4].iter().flat_map(|value| value.to_le_bytes()).collect();
    let value = pickle(&dict(&[("w", sound())]));
    let mut entries = [entry("x/data.pkl", &value), entry("x/byteorder", b"little"), entry("x/data/0", &storage)];
    change(&mut entries[position]);
    zip(&entries)
}

fn legacy(value: &[u8], keys: &[u8], storages: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    [magic, &pickle(b"M\xe9\x03")[..], &pickle(b"}"), &pickle(value), &pickle(keys), storages].concat()
}

fn reference(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/checkpoints").join(name)).unwrap()
}

#[test]
fn the_makers_of_these_files_make_sound_ones_too() {
    assert_eq!(read_all("sound", pth(&dict(&[("w", sound())]))), Ok(4));
    let storage = [&4u64.to_le_bytes()[..], &[0; 16]].concat();
    let keys = [b"](", &text("0")[..], b"e"].concat();
    assert_eq!(read_all("legacy", legacy(&dict(&[("w", sound())]), &keys, &storage)), Ok(4));
    assert_eq!(read_all("gguf", gguf(&[], &[("w", &[2, 2], 0, 0)], 16)), Ok(4));
    assert_eq!(
        read_all("safetensors", safetensors(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8)),
        Ok(2)
    );
}

#[test]
fn a_whole_module_is_refused_with_the_remedy_under_any_key() {
    let module = [b"cvision\nClassifier\n)\x81", &dict(&[("_modules", dict(&[]))])[..], b"b"].concat();
    let error = read_all("x.pth", pth(&dict(&[("classifier", module)]))).unwrap_err();
    assert!(error.contains("vision.Classifier") && error.contains("model.state_dict()"), "{error}");
}

#[test]
fn a_long_list_does_not_cost_the_keys_after_it_their_values() {
    let losses = [b"](", &b"K\x01".repeat(150_000)[..], b"e"].concat();
    let classes = [b"](", &[text("cat"), text("dog")].concat()[..], b"e"].concat();
    let values = dict(&[("losses", losses), ("classes", classes), ("model", dict(&[("w", sound())]))]);
    let checkpoint = Checkpoint::from_bytes("x.pth", pth(&values)).unwrap();
    assert_eq!(checkpoint.metadata()["classes"], serde_json::json!(["cat", "dog"]));
    assert!(!checkpoint.metadata().contains_key("losses"));
}

#[test]
fn every_hostile_zip_is_refused() {
    let huge = i64::MAX;
    let many: Vec<_> = (0..200).map(|_| huge).collect();
    let bomb_of_lists = [b"]q\x00".to_vec(), b"(h\x00h\x00e".repeat(1_000_000)].concat();
    let doubling: Vec<u8> =
        (0..60u8).flat_map(|n| [b'}', b'q', n + 1, b'(', b'K', 0, b'h', n, b'K', 1, b'h', n, b'u']).collect();
    let doubling = [b"}q\x00", &doubling[..]].concat();
    let nested_dicts = [b"}X\x01\0\0\0a".repeat(100_000), sound(), b"s".repeat(100_000)].concat();
    let set_bomb =
        [&b"cbuiltins\nset\nq\x00]q\x01("[..], &b"K\x00".repeat(50_000), b"e", &b"h\x00h\x01\x85R0".repeat(300_000)]
            .concat();
    let pair_bomb = [
        &b"ccollections\nOrderedDict\nq\x00](K\x00K\x00\x86q\x02"[..],
        &b"h\x02".repeat(50_000),
        b"eq\x01",
        &b"h\x00h\x01\x85R0".repeat(100_000),
    ]
    .concat();
    let aliases = [
        &b"}q\x00("[..],
        &(0..300_000u32).flat_map(|n| [&b"J"[..], &n.to_le_bytes(), b"N"].concat()).collect::<Vec<_>>(),
        b"u0}(",
        &(0..300_000u32)
            .flat_map(|n| [&b"X\x04\0\0\0"[..], format!("{:04x}", n & 0xffff).as_bytes(), b"h\x00"].concat())
            .collect::<Vec<_>>(),
        b"u",
    ]
    .concat();
    let long_name = "n".repeat(1000);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("zip-shape-overflow", pth(&dict(&[("w", tensor(4, 0, &[1 << 40, 1 << 40], &[1, 1]))]))),
        ("zip-shape-2-to-63", pth(&dict(&[("w", tensor(4, 0, &[huge], &[1]))]))),
        ("zip-stride-overflow", pth(&dict(&[("w", tensor(4, 0, &[2, 2], &[huge, huge]))]))),
        ("zip-offset-overflow", pth(&dict(&[("w", tensor(4, huge, &[4], &[1]))]))),
        ("zip-offset-past-the-end", pth(&dict(&[("w", tensor(4, 1, &[4], &[1]))]))),
        ("zip-negative-stride", pth(&dict(&[("w", tensor(4, 0, &[4], &[-1]))]))),
        ("zip-negative-offset", pth(&dict(&[("w", tensor(4, -1, &[4], &[1]))]))),
        ("zip-negative-size", pth(&dict(&[("w", tensor(4, 0, &[-4], &[1]))]))),
        ("zip-expanded-to-4-terabytes", pth(&dict(&[("w", tensor(4, 0, &[1 << 40], &[0]))]))),
        (
            "zip-expanded-from-a-storage-that-claims-more",
            pth_with(&dict(&[("w", tensor(1 << 42, 0, &[1 << 33, 512], &[0, 1]))]), &[1.0; 512]),
        ),
        ("zip-storage-claims-more", pth(&dict(&[("w", tensor(1 << 40, 0, &[1 << 40], &[1]))]))),
        ("zip-storage-smaller-than-tensor", pth(&dict(&[("w", tensor(5, 0, &[5], &[1]))]))),
        ("zip-strides-of-another-rank", pth(&dict(&[("w", tensor(4, 0, &[4], &[1, 1]))]))),
        ("zip-200-dimensions", pth(&dict(&[("w", tensor(4, 0, &many, &many))]))),
        ("zip-storage-missing", pth(&dict(&[("w", tensor_of("FloatStorage", "9", 4, 0, &[4], &[1]))]))),
        ("zip-storage-key-escapes", pth(&dict(&[("w", tensor_of("FloatStorage", "../data.pkl", 4, 0, &[4], &[1]))]))),
        ("zip-storage-of-unknown-type", pth(&dict(&[("w", tensor_of("EvilStorage", "0", 4, 0, &[4], &[1]))]))),
        ("zip-tensor-without-arguments", pth(&dict(&[("w", b"ctorch._utils\n_rebuild_tensor_v2\n)R".to_vec())]))),
        ("zip-tensor-arguments-no-tuple", pth(&dict(&[("w", b"ctorch._utils\n_rebuild_tensor_v2\nNR".to_vec())]))),
        ("zip-same-name-twice", pth(&dict(&[("w", sound()), ("w", sound())]))),
        ("zip-name-of-1000-bytes", pth(&dict(&[(&long_name, sound())]))),
        ("zip-not-a-number", pth_with(&dict(&[("w", sound())]), &[1.0, f32::NAN, 0.0, 0.0])),
        ("zip-infinite", pth_with(&dict(&[("w", sound())]), &[1.0, f32::INFINITY, 0.0, 0.0])),
        ("zip-parameter-of-itself", pth(b"}(X\x01\0\0\0wctorch._utils\n_rebuild_parameter\n](h\x00eq\x00Ru")),
        ("zip-runs-a-program", pth(&dict(&[("w", b"cos\nsystem\n(X\x04\0\0\0exittR".to_vec())]))),
        ("zip-list-of-itself", pth(b"]q\x00h\x00a")),
        ("zip-dictionary-of-itself", pth(b"}q\x00X\x01\0\0\0ah\x00s")),
        ("zip-wrapper-of-itself", pth(b"}q\x00X\x05\0\0\0modelh\x00s")),
        ("zip-million-deep-tuples", pth(&[b"N".to_vec(), vec![0x85; 1_000_000]].concat())),
        ("zip-million-deep-marks", pth(&b"(".repeat(1_000_000))),
        ("zip-100000-deep-dictionaries", pth(&nested_dicts)),
        ("zip-memo-bomb", pth(&bomb_of_lists)),
        ("zip-doubling-dictionaries", pth(&doubling)),
        ("zip-sets-of-the-same-list", pth(&set_bomb)),
        ("zip-pairs-of-the-same-list", pth(&pair_bomb)),
        ("zip-dictionary-under-many-keys", pth(&aliases)),
        ("zip-duplicating-without-end", pth(&[&b"N"[..], &b"2".repeat(5_000_000)].concat())),
        ("zip-text-claims-4-gigabytes", pth(b"X\xff\xff\xff\xffabc")),
        ("zip-text-claims-2-to-64", pth(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc")),
        ("zip-bytes-claim-2-to-63", pth(b"\x8e\0\0\0\0\0\0\0\x80abc")),
        ("zip-number-claims-4-gigabytes", pth(b"\x8b\xff\xff\xff\xff\x01")),
        ("zip-frame-claims-2-to-64", pth(b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN")),
        ("zip-pops-an-empty-stack", pth(b"0")),
        ("zip-takes-below-its-mark", pth(b"N(0")),
        ("zip-uses-an-unset-memo", pth(b"j\xff\xff\xff\xff")),
        ("zip-odd-dictionary", pth(b"}(Nu")),
        ("zip-protocol-9", zip(&[entry("x/data.pkl", b"\x80\x09N.")])),
        ("zip-protocol-0", zip(&[entry("x/data.pkl", b"I1\n.")])),
        ("zip-empty-pickle", zip(&[entry("x/data.pkl", b"")])),
        ("zip-extension-registry", pth(b"\x82\x01")),
        ("zip-buffers-elsewhere", pth(b"\x97")),
        ("zip-unknown-instruction", pth(b"\xff")),
        ("zip-endless-import-name", pth(&[&b"c"[..], &b"a".repeat(100_000)].concat())),
        ("zip-compressed-entry", changed(2, |entry| entry.method = 8)),
        ("zip-encrypted-entry", changed(2, |entry| entry.flags = 1)),
        ("zip-storage-past-the-end", changed(2, |entry| entry.claimed_bytes = Some(0x7fff_ffff))),
        ("zip-storage-header-elsewhere", changed(2, |entry| entry.claimed_offset = Some(7))),
        ("zip-storage-header-past-the-end", changed(2, |entry| entry.claimed_offset = Some(0x7fff_ffff))),
        ("zip-wide-size-missing", changed(2, |entry| entry.claimed_bytes = Some(u32::MAX))),
        ("zip-pickle-past-the-end", changed(0, |entry| entry.claimed_bytes = Some(0x7fff_ffff))),
        ("zip-same-entry-twice", changed(1, |entry| entry.name = "x/data/0".into())),
        ("zip-two-pickles", changed(1, |entry| entry.name = "y/data.pkl".into())),
        ("zip-byte-order-middle", changed(1, |entry| entry.content = b"middle".to_vec())),
        ("zip-without-pickle", changed(0, |entry| entry.name = "x/other.pkl".into())),
        ("zip-empty-archive", zip(&[])),
    ];
    assert!(cases.len() >= 45);
    cases.into_iter().for_each(|(name, bytes)| assert_refused(name, bytes));
}

#[test]
fn every_hostile_zip_directory_is_refused() {
    let sound = pth(&dict(&[("w", sound())]));
    let end = sound.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = sound.clone();
        changed[end + at..end + at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    assert_refused("directory-count-too-high", with(10, &[0xfe, 0xff]));
    assert_refused("directory-64-bit-record-missing", with(10, &[0xff, 0xff]));
    assert_refused("directory-past-the-end", with(16, &0x7fff_ffffu32.to_le_bytes()));
    assert_refused("directory-size-past-the-end", with(12, &0x7fff_ffffu32.to_le_bytes()));
    assert_refused("directory-not-where-it-should-be", with(16, &3u32.to_le_bytes()));
    // A 64-bit record that claims 2^63 entries.
    let (head, tail) = sound.split_at(end);
    let record = [b"PK\x06\x06", &[0; 20][..], &[0xff; 16], &(1u64 << 40).to_le_bytes(), &0u64.to_le_bytes()].concat();
    let locator = [b"PK\x06\x07\0\0\0\0", &(end as u64).to_le_bytes()[..], &[0; 4]].concat();
    let tail = [&tail[..8], &[0xff; 12], &tail[20..]].concat();
    assert_refused("directory-claims-2-to-63-entries", [head, &record, &locator, &tail].concat());
    assert_refused("directory-points-64-bit-record-past-the-end", [head, &[0xff; 20], &tail].concat());
}

#[test]
fn every_hostile_legacy_file_is_refused() {
    let value = dict(&[("w", sound())]);
    let keys = [b"](", &text("0")[..], b"e"].concat();
    let storage = |count: u64| [&count.to_le_bytes()[..], &[0; 16]].concat();
    assert_refused("legacy-storage-claims-2-to-63", legacy(&value, &keys, &storage(1 << 63)));
    assert_refused("legacy-storage-claims-one-more", legacy(&value, &keys, &storage(5)));
    assert_refused("legacy-storage-too-small", legacy(&value, &keys, &storage(3)));
    assert_refused("legacy-storage-not-listed", legacy(&value, b"]", &storage(4)));
    assert_refused(
        "legacy-storage-of-no-known-type",
        legacy(&value, &[b"](", &text("7")[..], b"e"].concat(), &storage(4)),
    );
    assert_refused("legacy-storages-no-list", legacy(&value, b"N", &storage(4)));
    assert_refused("legacy-without-storages", legacy(&value, &keys, &[]));
    assert_refused("legacy-magic-alone", legacy(b"", b"", b"")[..14].to_vec());
    assert_refused("legacy-another-magic", pickle(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x18"));
}

// ---- safetensors ----

fn safetensors(header: &str, data_bytes: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data_bytes]].concat()
}

#[test]
fn every_hostile_safetensors_file_is_refused() {
    let two = |first: &str, second: &str| {
        let tensor = |offsets: &str| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#);
        safetensors(&format!(r#"{{"a":{},"b":{}}}"#, tensor(first), tensor(second)), 16)
    };
    let one = |tensor: &str, data_bytes| safetensors(&format!(r#"{{"w":{tensor}}}"#), data_bytes);
    assert_eq!(read_all("sound", two("[0,8]", "[8,16]")), Ok(4));
    assert_refused("safetensors-overlap", two("[0,8]", "[4,12]"));
    assert_refused("safetensors-same-bytes", two("[0,8]", "[0,8]"));
    assert_refused("safetensors-hole", two("[0,8]", "[12,20]"));
    assert_refused("safetensors-offsets-reversed", two("[0,8]", "[16,8]"));
    assert_refused("safetensors-past-the-end", two("[0,8]", "[8,16000]"));
    assert_refused("safetensors-more-data", one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#, 9));
    assert_refused("safetensors-shape-lies", one(r#"{"dtype":"F32","shape":[200],"data_offsets":[0,8]}"#, 8));
    let overflow = r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}"#;
    assert_refused("safetensors-shape-overflow", one(overflow, 0));
    assert_refused("safetensors-negative-shape", one(r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#, 8));
    assert_refused("safetensors-type-unknown", one(r#"{"dtype":"F33","shape":[2],"data_offsets":[0,8]}"#, 8));
    assert_refused(
        "safetensors-not-a-number",
        [one(r#"{"dtype":"F16","shape":[1],"data_offsets":[0,2]}"#, 0), vec![0, 0x7e]].concat(),
    );
    assert_refused("safetensors-deep-json", safetensors(&r#"{"a":"#.repeat(100_000), 0));
    assert_refused("safetensors-header-past-the-end", [&1000u64.to_le_bytes()[..], b"{}"].concat());
    assert_refused("safetensors-header-of-2-to-63", [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat());
    assert_refused(
        "safetensors-header-no-text",
        safetensors("{\u{fffd}", 0).into_iter().filter(|byte| *byte != 0xbf).collect(),
    );
    assert_refused("json-without-index", b"{\"model_type\": \"convnext\"}".to_vec());
}

// ---- gguf ----

/// `keys` are raw bytes each; a tensor is its name, its shape innermost first, its type and its offset.
fn gguf(keys: &[Vec<u8>], tensors: &[(&str, &[u64], u32, u64)], data_bytes: usize) -> Vec<u8> {
    gguf_claiming(tensors.len() as u64, keys.len() as u64, keys, tensors, data_bytes)
}

fn gguf_claiming(
    tensor_count: u64,
    key_count: u64,
    keys: &[Vec<u8>],
    tensors: &[(&str, &[u64], u32, u64)],
    data_bytes: usize,
) -> Vec<u8> {
    let mut file = [b"GGUF\x03\0\0\0", &tensor_count.to_le_bytes()[..], &key_count.to_le_bytes()].concat();
    file.extend(keys.concat());
    for (name, shape, kind, offset) in tensors {
        file.extend(
            [&(name.len() as u64).to_le_bytes()[..], name.as_bytes(), &(shape.len() as u32).to_le_bytes()].concat(),
        );
        file.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        file.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
    }
    file.resize(file.len().next_multiple_of(32) + data_bytes, 0);
    file
}

fn gguf_key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&(name.len() as u64).to_le_bytes()[..], name.as_bytes(), &kind.to_le_bytes(), value].concat()
}

#[test]
fn every_hostile_gguf_file_is_refused() {
    let sound: (&str, &[u64], u32, u64) = ("w", &[2, 2], 0, 0);
    let alignment = |value: u32| gguf(&[gguf_key("general.alignment", 4, &value.to_le_bytes())], &[sound], 64);
    let one = |shape: &[u64], kind, offset| gguf(&[], &[("w", shape, kind, offset)], 64);
    let key = |kind, value: &[u8]| gguf(&[gguf_key("k", kind, value)], &[sound], 16);
    let count = u64::MAX.to_le_bytes();
    let arrays = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat().repeat(10_000);
    assert_refused("gguf-alignment-0", alignment(0));
    assert_refused("gguf-alignment-3", alignment(3));
    assert_refused("gguf-alignment-2-to-31", alignment(1 << 31));
    assert_refused("gguf-alignment-as-text", gguf(&[gguf_key("general.alignment", 8, &[0; 8])], &[sound], 64));
    assert_refused("gguf-2-to-63-tensors", gguf_claiming(1 << 63, 0, &[], &[sound], 16));
    assert_refused("gguf-2-to-63-keys", gguf_claiming(1, 1 << 63, &[], &[sound], 16));
    assert_refused("gguf-tensor-missing", gguf_claiming(2, 0, &[], &[sound], 16));
    assert_refused("gguf-version-1", [b"GGUF\x01\0\0\0", &[0; 64][..]].concat());
    assert_refused("gguf-big-endian", [b"GGUF\0\0\0\x03", &[0; 64][..]].concat());
    assert_refused("gguf-text-of-2-to-64", key(8, &count));
    assert_refused("gguf-array-of-2-to-64", key(9, &[&0u32.to_le_bytes()[..], &count].concat()));
    assert_refused("gguf-arrays-10000-deep", key(9, &arrays));
    assert_refused("gguf-value-of-unknown-type", key(77, &[0; 8]));
    assert_refused("gguf-name-of-2-to-64", [&gguf_claiming(1, 0, &[], &[], 0)[..24], &count, &[0; 64]].concat());
    assert_refused("gguf-shape-overflow", one(&[1 << 40, 1 << 40], 0, 0));
    assert_refused("gguf-shape-past-the-end", one(&[1 << 40], 0, 0));
    assert_refused("gguf-offset-past-the-end", one(&[2, 2], 0, 1 << 62));
    assert_refused("gguf-offset-overflow", one(&[2, 2], 0, u64::MAX - 31));
    assert_refused("gguf-offset-not-aligned", one(&[2, 2], 0, 1));
    assert_refused("gguf-100-dimensions", one(&[1; 100], 0, 0));
    assert_refused("gguf-type-unknown", one(&[2, 2], 99, 0));
    assert_refused("gguf-rows-of-broken-blocks", one(&[2, 16], 2, 0));
    assert_refused("gguf-blocks-past-the-end", one(&[256, 1 << 20], 12, 0));
    assert_refused("gguf-same-name-twice", gguf(&[], &[("w", &[4], 0, 0), ("w", &[4], 0, 32)], 64));
    assert_refused("gguf-overlap", gguf(&[], &[("a", &[16], 0, 0), ("b", &[4], 0, 32)], 64));
    let not_a_number = one(&[16], 0, 0).into_iter().rev().skip(4).rev().chain(f32::NAN.to_le_bytes()).collect();
    assert_refused("gguf-not-a-number", not_a_number);
}

#[test]
fn every_other_content_is_refused() {
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("one-byte", b"\x80"),
        ("text", b"just a text"),
        ("web-page", b"<!DOCTYPE html><html><body>404</body></html>"),
        ("keras", b"\x89HDF\r\n\x1a\n________"),
        ("zip-signature-alone", b"PK\x03\x04"),
        ("gguf-signature-alone", b"GGUF"),
    ] {
        assert_refused(name, bytes.to_vec());
    }
    let folder = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("folder"), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let gguf = gguf(&[gguf_key("k", 8, &[&3u64.to_le_bytes()[..], b"abc"].concat())], &[("w", &[2, 2], 0, 0)], 16);
    let safetensors = safetensors(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
    let files = [
        ("zip", pth(&dict(&[("w", sound())]))),
        ("zip-by-torch", reference("protocol4-zip.pth")),
        ("legacy-by-torch", reference("protocol2-legacy.pth")),
        ("legacy-protocol-5-by-torch", reference("protocol5-legacy.pth")),
        ("safetensors", safetensors),
        ("gguf", gguf),
    ];
    for (name, whole) in files {
        assert!(read_all(name, whole.clone()).is_ok(), "{name}");
        for len in 0..whole.len() {
            let error = read_all(name, whole[..len].to_vec()).expect_err(&format!("{name} cut at {len}"));
            assert!(error.contains(name), "{error}");
        }
    }
}

#[test]
fn a_file_with_any_byte_changed_never_panics() {
    let gguf = gguf(&[gguf_key("k", 4, &[7; 4])], &[("w", &[2, 2], 0, 0), ("q", &[32], 8, 32)], 80);
    let files = [
        pth(&dict(&[("w", sound())])),
        reference("protocol2-zip.pth"),
        reference("protocol5-zip.pth"),
        reference("protocol2-legacy.pth"),
        reference("protocol4-legacy.pth"),
        reference("big-endian.pth"),
        reference("prefix-lightning.ckpt"),
        reference("module-zip.pth"),
        safetensors(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8),
        gguf,
    ];
    for file in files {
        for position in 0..file.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[position] ^= mask;
                let _ = read_all("changed", changed);
            }
        }
    }
}

/// The cases above run again in a process of their own, where nothing else allocates, and measure the heap.
#[test]
fn no_hostile_file_allocates_more_than_it_justifies() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["hostile_checkpoints::every_", "--test-threads=1", "--quiet"])
        .env(MEASURING, "1")
        .status();
    assert!(status.unwrap().success());
}
