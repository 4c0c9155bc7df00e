//! The pickle machine: protocols 2 to 5, read from a bounded range of the file.
//!
//! Each opcode adds at most one small value, so memory is bounded by the pickle's length, and [`MAX_OPCODES`] bounds
//! that: a checkpoint of a thousand tensors with its optimizer takes about a tenth of it.

use std::collections::HashMap;
use std::ops::Range;

use super::error::{Fault, malformed, refused};
use super::pickle::{Id, Object, Pickle, Span, Value};
use super::reader::Reader;
use super::source::Source;

const MAX_OPCODES: usize = 4_000_000;
const MAX_TEXT_BYTES: usize = 64 << 20;

// Constants that every pickle repeats have one value each, at the start of the arena.
const NONE: Id = Id(0);
const FALSE: Id = Id(1);
const TRUE: Id = Id(2);
const EMPTY_TUPLE: Id = Id(3);

/// Reads the pickle at the start of `range` and says where it ends.
pub(super) fn load(source: &Source, range: Range<u64>) -> Result<(Pickle, u64), Fault> {
    let mut machine = Machine::new(Reader::new(source, range));
    for _ in 0..MAX_OPCODES {
        let opcode = machine.reader.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            let pickle = Pickle { values: machine.values, text: machine.text, root };
            return Ok((pickle, machine.reader.position()));
        }
        machine.step(opcode)?;
    }
    Err(refused(format!("its pickle takes more than {MAX_OPCODES} steps, far beyond any state dict")))
}

struct Machine<'a> {
    reader: Reader<'a>,
    values: Vec<Value>,
    text: Vec<u8>,
    stack: Vec<Id>,
    /// Lengths of the stack where marks were set.
    marks: Vec<u32>,
    memo: HashMap<u32, Id>,
    /// Entries copied by calls, which no opcode accounts for.
    copied: usize,
}

/// What a harmless call amounts to.
enum Plain {
    /// The value it was given.
    Same(Id),
    Dict(Vec<(Id, Id)>),
}

impl<'a> Machine<'a> {
    fn new(reader: Reader<'a>) -> Self {
        let values = vec![Value::None, Value::Bool(false), Value::Bool(true), Value::Tuple(Vec::new())];
        Machine {
            reader,
            values,
            text: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            0x80 => self.protocol()?,
            0x95 => drop(self.reader.u64()?), // FRAME: how much to read ahead, which the reader decides itself
            b'(' => self.marks.push(self.stack.len() as u32),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'N' => self.stack.push(NONE),
            0x88 => self.stack.push(TRUE),
            0x89 => self.stack.push(FALSE),
            b'K' | b'M' | b'J' | 0x8a | 0x8b | b'G' => self.number(opcode)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' => self.push_text(opcode)?,
            b'C' | b'B' | 0x8e | 0x96 => self.push_bytes(opcode)?,
            b')' => self.stack.push(EMPTY_TUPLE),
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' | 0x85 | 0x86 | 0x87 | b'l' | 0x91 | b'd' => self.collect(opcode)?,
            b'a' | b'e' | 0x90 => self.append(opcode)?,
            b's' | b'u' => self.set_items(opcode)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(opcode)?,
            b'c' | 0x93 => self.push_global(opcode)?,
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            b'R' | 0x81 | 0x92 | b'o' => self.call(opcode)?,
            b'b' => self.set_state()?,
            0x82..=0x84 => return Err(refused("its pickle uses Python's extension registry")),
            0x97 | 0x98 => return Err(refused("its pickle keeps buffers outside of the file")),
            b'F' | b'I' | b'L' | b'S' | b'V' | b'P' | b'g' | b'p' | b'i' => {
                return Err(refused("its pickle has protocol 0 or 1, which torch.save never writes"));
            }
            _ => return Err(self.fault(&format!("0x{opcode:02x} is not a pickle instruction"))),
        }
        Ok(())
    }

    fn fault(&self, what: &str) -> Fault {
        malformed(format!("{what}, before byte {} of the pickle", self.reader.offset()))
    }

    fn protocol(&mut self) -> Result<(), Fault> {
        match self.reader.byte()? {
            0..=5 => Ok(()),
            newer => Err(refused(format!("its pickle has protocol {newer}; Galley reads 2 to 5"))),
        }
    }

    fn push(&mut self, value: Value) {
        let id = Id(self.values.len() as u32); // at most one per opcode, and those are counted
        self.values.push(value);
        self.stack.push(id);
    }

    /// Where the current mark lies: nothing below it may be taken.
    fn floor(&self) -> usize {
        self.marks.last().map_or(0, |mark| *mark as usize)
    }

    fn pop(&mut self) -> Result<Id, Fault> {
        if self.stack.len() <= self.floor() {
            return Err(self.fault("a value is taken from an empty stack"));
        }
        self.stack.pop().ok_or_else(|| malformed("the pickle is empty"))
    }

    fn top(&self) -> Result<Id, Fault> {
        let above_mark = self.stack.get(self.floor()..).unwrap_or_default();
        above_mark.last().copied().ok_or_else(|| self.fault("a value is taken from an empty stack"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Fault> {
        let mark = self.marks.pop().ok_or_else(|| self.fault("a mark is missing"))? as usize;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn number(&mut self, opcode: u8) -> Result<(), Fault> {
        let value = match opcode {
            b'K' => Value::Int(self.reader.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.reader.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.reader.array()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.reader.array()?)),
            _ => self.long(opcode)?,
        };
        self.push(value);
        Ok(())
    }

    fn long(&mut self, opcode: u8) -> Result<Value, Fault> {
        let len = if opcode == 0x8a { self.reader.byte()?.into() } else { u64::from(self.reader.u32()?) };
        let span = self.take_text(len)?;
        let digits = &self.text[span.start as usize..];
        if digits.len() > 8 {
            return Ok(Value::BigInt(span));
        }
        let sign = if digits.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut bytes = [sign; 8];
        bytes[..digits.len()].copy_from_slice(digits);
        self.text.truncate(span.start as usize);
        Ok(Value::Int(i64::from_le_bytes(bytes)))
    }

    fn push_text(&mut self, opcode: u8) -> Result<(), Fault> {
        let len = match opcode {
            0x8c | b'U' => self.reader.byte()?.into(),
            0x8d => self.reader.u64()?,
            _ => self.reader.u32()?.into(),
        };
        let span = self.take_text(len)?;
        self.push(Value::Text(span));
        Ok(())
    }

    fn push_bytes(&mut self, opcode: u8) -> Result<(), Fault> {
        let len = match opcode {
            b'C' => self.reader.byte()?.into(),
            b'B' => self.reader.u32()?.into(),
            _ => self.reader.u64()?,
        };
        self.reader.skip(len)?;
        self.push(Value::Bytes);
        Ok(())
    }

    fn take_text(&mut self, len: u64) -> Result<Span, Fault> {
        if self.text.len() as u64 + len.min(MAX_TEXT_BYTES as u64 + 1) > MAX_TEXT_BYTES as u64 {
            return Err(refused("its pickle holds more than 64 MB of text"));
        }
        let start = self.text.len() as u32;
        self.reader.append_to(&mut self.text, len)?;
        Ok(Span { start, len: len as u32 })
    }

    fn collect(&mut self, opcode: u8) -> Result<(), Fault> {
        let value = match opcode {
            b't' => Value::Tuple(self.pop_mark()?),
            b'l' | 0x91 => Value::List(self.pop_mark()?),
            b'd' => Value::Dict(self.pairs()?),
            _ => {
                let count = usize::from(opcode - 0x84); // TUPLE1 to TUPLE3
                let start = self.stack.len().checked_sub(count).filter(|start| *start >= self.floor());
                let start = start.ok_or_else(|| self.fault("a value is taken from an empty stack"))?;
                Value::Tuple(self.stack.split_off(start))
            }
        };
        self.push(value);
        Ok(())
    }

    fn pairs(&mut self) -> Result<Vec<(Id, Id)>, Fault> {
        let flat = self.pop_mark()?;
        let (pairs, rest) = flat.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.fault("a dictionary key has no value"));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    fn append(&mut self, opcode: u8) -> Result<(), Fault> {
        let added = if opcode == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
        let target = self.top()?;
        match self.values.get_mut(target.0 as usize) {
            Some(Value::List(members)) => members.extend(added),
            Some(Value::Object(_)) => {} // a list of an unknown class: no state dict lies there
            _ => return Err(self.fault("a value is appended to what is not a list")),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Result<(), Fault> {
        let added = if opcode == b's' {
            let value = self.pop()?;
            vec![(self.pop()?, value)]
        } else {
            self.pairs()?
        };
        let target = self.top()?;
        match self.values.get_mut(target.0 as usize) {
            Some(Value::Dict(entries)) => entries.extend(added),
            Some(Value::Object(object)) => object.items.extend(added),
            _ => return Err(self.fault("an entry is set in what is not a dictionary")),
        }
        Ok(())
    }

    fn memo(&mut self, opcode: u8) -> Result<(), Fault> {
        let key = match opcode {
            b'q' | b'h' => self.reader.byte()?.into(),
            b'r' | b'j' => self.reader.u32()?,
            _ => self.memo.len() as u32,
        };
        if matches!(opcode, b'h' | b'j') {
            let id = self.memo.get(&key).copied();
            let id = id.ok_or_else(|| self.fault(&format!("value {key} is used before it is made")))?;
            self.stack.push(id);
        } else {
            self.memo.insert(key, self.top()?);
        }
        Ok(())
    }

    fn push_global(&mut self, opcode: u8) -> Result<(), Fault> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let name = self.pop()?;
            {
                let module = self.pop()?;
                (self.span(module)?, self.span(name)?)
            }
        };
        self.push(Value::Global { module, name });
        Ok(())
    }

    fn line(&mut self) -> Result<Span, Fault> {
        let start = self.text.len() as u32;
        self.reader.append_line_to(&mut self.text)?;
        Ok(Span { start, len: self.text.len() as u32 - start })
    }

    fn span(&self, id: Id) -> Result<Span, Fault> {
        match self.values.get(id.0 as usize) {
            Some(Value::Text(span)) => Ok(*span),
            _ => Err(self.fault("an import has no name")),
        }
    }

    /// REDUCE, NEWOBJ, NEWOBJ_EX and OBJ: recorded, never carried out.
    fn call(&mut self, opcode: u8) -> Result<(), Fault> {
        let (callable, arguments) = match opcode {
            b'o' => {
                let mut members = self.pop_mark()?;
                if members.is_empty() {
                    return Err(self.fault("an object has no class"));
                }
                let callable = members.remove(0);
                self.push(Value::Tuple(members));
                (callable, self.pop()?)
            }
            _ => {
                if opcode == 0x92 {
                    self.pop()?; // keyword arguments
                }
                let arguments = self.pop()?;
                (self.pop()?, arguments)
            }
        };
        match self.plain_result(callable, arguments) {
            Some(Plain::Same(id)) => self.stack.push(id),
            Some(Plain::Dict(entries)) => {
                self.copied += entries.len();
                if self.copied > MAX_OPCODES {
                    return Err(refused("its pickle copies the same entries again and again"));
                }
                self.push(Value::Dict(entries));
            }
            None => {
                let object = Object { callable, arguments, state: None, items: Vec::new() };
                self.push(Value::Object(Box::new(object)));
            }
        }
        Ok(())
    }

    /// The result of the calls that only build plain containers.
    fn plain_result(&self, callable: Id, arguments: Id) -> Option<Plain> {
        let Some(Value::Global { module, name }) = self.values.get(callable.0 as usize) else { return None };
        let first = match self.values.get(arguments.0 as usize) {
            Some(Value::Tuple(members)) => members.first().copied(),
            _ => None,
        };
        match (self.named(*module), self.named(*name)) {
            (b"collections", b"OrderedDict") => self.ordered_dict(first),
            (b"collections", b"defaultdict") | (b"builtins" | b"__builtin__", b"dict") => Some(Plain::Dict(Vec::new())),
            (b"builtins" | b"__builtin__", b"set" | b"frozenset" | b"list") | (b"torch", b"Size") => {
                first.filter(|id| self.members(*id).is_some()).map(Plain::Same)
            }
            _ => None,
        }
    }

    /// An ordered dictionary: empty, or from `[[key, value], …]` as Python 2 wrote it.
    fn ordered_dict(&self, pairs: Option<Id>) -> Option<Plain> {
        let pair = |id: &Id| match *self.members(*id)? {
            [key, value] => Some((key, value)),
            _ => None,
        };
        let Some(pairs) = pairs else { return Some(Plain::Dict(Vec::new())) };
        self.members(pairs)?.iter().map(pair).collect::<Option<Vec<_>>>().map(Plain::Dict)
    }

    fn members(&self, id: Id) -> Option<&[Id]> {
        match self.values.get(id.0 as usize) {
            Some(Value::List(members) | Value::Tuple(members)) => Some(members),
            _ => None,
        }
    }

    fn named(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.text.get(start..start + span.len as usize).unwrap_or_default()
    }

    fn set_state(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let target = self.top()?;
        if let Some(Value::Object(object)) = self.values.get_mut(target.0 as usize) {
            object.state = Some(state);
        }
        Ok(())
    }
}
