//! The values of a pickle, as plain data in one arena: nothing in the file is ever called or imported.
//!
//! Calls the pickle asks for are kept as [`Value::Object`], except for the few that only make a dictionary, a list or
//! a size. Values refer to each other by index, so shared and cyclic values cost nothing and no depth of nesting can
//! overflow the stack, here or when the arena is dropped.

/// The index of a value in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(pub(super) u32);

/// A text inside the pickle's text pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

#[derive(Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Span),
    /// An integer beyond 64 bits, little endian.
    BigInt(Span),
    /// Byte strings: no tensor or plain value needs their content.
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Entries in file order, keys not yet compared.
    Dict(Vec<(Id, Id)>),
    Global {
        module: Span,
        name: Span,
    },
    /// What `torch.save` kept outside the pickle: a storage.
    Persistent(Id),
    Object(Box<Object>),
}

/// A call or an instance, kept inert.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) callable: Id,
    pub(super) arguments: Id,
    pub(super) state: Option<Id>,
    pub(super) items: Vec<(Id, Id)>,
}

#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) values: Vec<Value>,
    pub(super) text: Vec<u8>,
    pub(super) root: Id,
}

impl Pickle {
    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.text.get(start..start + span.len as usize).unwrap_or_default()
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(span) => std::str::from_utf8(self.bytes(*span)).ok(),
            _ => None,
        }
    }

    pub(super) fn unsigned(&self, id: Id) -> Option<u64> {
        match self.get(id) {
            Value::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The members of a tuple or a list.
    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(members) | Value::List(members) => Some(members),
            _ => None,
        }
    }

    /// The entries of a dictionary, or of an instance of a class derived from one.
    pub(super) fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict(entries) => Some(entries),
            Value::Object(object) if !object.items.is_empty() => Some(&object.items),
            _ => None,
        }
    }

    /// The value under a text key.
    pub(super) fn entry(&self, id: Id, key: &str) -> Option<Id> {
        let entries = self.entries(id)?;
        entries.iter().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    /// Module and name of an imported class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.get(id) {
            Value::Global { module, name } => {
                let module = std::str::from_utf8(self.bytes(*module)).ok()?;
                Some((module, std::str::from_utf8(self.bytes(*name)).ok()?))
            }
            _ => None,
        }
    }

    pub(super) fn object(&self, id: Id) -> Option<&Object> {
        match self.get(id) {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The class of a pickled `torch.nn.Module`, told by what every module's state holds.
    pub(super) fn module_class(&self, id: Id) -> Option<String> {
        let object = self.object(id)?;
        let state = object.state?;
        self.entry(state, "_modules").or_else(|| self.entry(state, "_parameters"))?;
        let class = self.class_of(object);
        Some(class.unwrap_or_else(|| "an unnamed class".to_owned()))
    }

    /// The dotted name of what an inert object would have been made by.
    pub(super) fn class_of(&self, object: &Object) -> Option<String> {
        let (module, name) = match self.get(object.callable) {
            // A whole module of an old torch.save: ('module', class, source file, source).
            Value::Persistent(id) => self.global(*self.sequence(*id)?.get(1)?)?,
            _ => self.global(object.callable)?,
        };
        Some(format!("{module}.{name}"))
    }
}
