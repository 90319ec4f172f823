//! YAML for serde, as much of it as a kubeconfig uses: several documents, aliases, merge keys.
//!
//! Mistakes are told by line and column and never by what stands there: a kubeconfig is full of secrets.

use std::collections::HashMap;
use std::fmt;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// Most that aliases may repeat, in bytes and nodes: what is short in a file must not fill the memory.
const REPEATED: usize = 1 << 20;

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Mistake {
    at: Option<Place>,
    what: String,
}

/// A place in a file, counted from 1.
#[derive(Clone, Copy, Debug)]
struct Place {
    line: usize,
    column: usize,
}

/// One value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    at: Place,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// `plain`: without quotes, so it may be a number, a truth value or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

/// The documents of a file, without the empty ones.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Mistake> {
    let parser = Parser::new_from_str_with_options(text, granit_parser::options! { emit_comments: false });
    let mut reader = Reader { parser, anchors: HashMap::new(), repeated: 0 };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
            (event, at) => documents.push(reader.node(event, at)?),
        }
        documents.retain(|document| !document.is_null());
    }
}

/// Events on their way to nodes. Nothing nests deeper than the parser allows: 255 of each kind of collection.
struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    repeated: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Place), Mistake> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.into())),
            Some(Err(error)) => Err(error.into()),
            None => Err(de::Error::custom("it ends too early")),
        }
    }

    fn node(&mut self, event: Event<'a>, at: Place) -> Result<Node, Mistake> {
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (Kind::Scalar { text: text.into_owned(), plain }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (Kind::Sequence(self.sequence()?), anchor),
            Event::MappingStart(_, anchor, _) => (Kind::Mapping(self.mapping()?), anchor),
            Event::Alias(anchor) => return self.repeat(anchor, at),
            _ => return Err(mistake(at, "a value is expected")),
        };
        let node = Node { at, kind };
        if anchor != 0 {
            self.anchors.insert(anchor, node);
            return self.repeat(anchor, at);
        }
        Ok(node)
    }

    fn sequence(&mut self) -> Result<Vec<Node>, Mistake> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, at) => items.push(self.node(event, at)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Vec<(Node, Node)>, Mistake> {
        let (mut pairs, mut merged) = (Vec::new(), Vec::new());
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => break,
                (event, at) => self.node(event, at)?,
            };
            let (event, at) = self.next()?;
            let value = self.node(event, at)?;
            match (&key.kind, value.kind) {
                (Kind::Scalar { text, plain: true }, Kind::Mapping(base)) if text == "<<" => {
                    merged.push(base)
                }
                (Kind::Scalar { text, plain: true }, Kind::Sequence(bases)) if text == "<<" => {
                    for base in bases {
                        let Kind::Mapping(base) = base.kind else {
                            return Err(mistake(base.at, "a mapping to merge is expected"));
                        };
                        merged.push(base);
                    }
                }
                (_, kind) => pairs.push((key, Node { at, kind })),
            }
        }
        // What the mapping says itself wins, then what is named first.
        for (key, value) in merged.into_iter().flatten() {
            if !pairs.iter().any(|(known, _)| known.text() == key.text()) {
                pairs.push((key, value));
            }
        }
        Ok(pairs)
    }

    fn repeat(&mut self, anchor: usize, at: Place) -> Result<Node, Mistake> {
        let node = self
            .anchors
            .get(&anchor)
            .ok_or_else(|| mistake(at, "the alias is part of what it stands for"))?;
        self.repeated += node.weight();
        if self.repeated > REPEATED {
            return Err(mistake(at, "aliases repeat more than 1 MiB"));
        }
        Ok(node.clone())
    }
}

impl Node {
    fn weight(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { text, .. } => text.len(),
            Kind::Sequence(items) => items.iter().map(Self::weight).sum(),
            Kind::Mapping(pairs) => pairs.iter().map(|(key, value)| key.weight() + value.weight()).sum(),
        }
    }

    fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            Kind::Sequence(_) | Kind::Mapping(_) => None,
        }
    }

    fn is_null(&self) -> bool {
        let Kind::Scalar { text, plain: true } = &self.kind else { return false };
        matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let (at, null) = (self.at, self.is_null());
        match self.kind {
            Kind::Scalar { .. } if null => visitor.visit_unit(),
            Kind::Scalar { text, plain: true } => match serde_json::from_str(&text) {
                Ok(Value::Bool(value)) => visitor.visit_bool(value),
                Ok(Value::Number(number)) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                    (Some(value), ..) => visitor.visit_u64(value),
                    (_, Some(value), _) => visitor.visit_i64(value),
                    (_, _, Some(value)) => visitor.visit_f64(value),
                    _ => visitor.visit_string(text),
                },
                _ => visitor.visit_string(text),
            },
            Kind::Scalar { text, plain: false } => visitor.visit_string(text),
            Kind::Sequence(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter())),
            Kind::Mapping(pairs) => visitor.visit_map(MapDeserializer::new(pairs.into_iter())),
        }
        .map_err(|mistake: Mistake| mistake.within(at))
    }

    /// A text may look like a number: tokens and names do.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.kind {
            Kind::Scalar { text, .. } => {
                visitor.visit_string(text).map_err(|error: Mistake| error.within(self.at))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_string(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_string(visitor)
    }

    /// With YAML 1.1's words for it, as kubectl.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "y" => visitor.visit_bool(true),
                "false" | "no" | "off" | "n" => visitor.visit_bool(false),
                _ => self.deserialize_any(visitor),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.kind {
            Kind::Scalar { text, .. } => {
                visitor.visit_enum(text.into_deserializer()).map_err(|error: Mistake| error.within(self.at))
            }
            _ => Err(mistake(self.at, "a word is expected")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct
        seq tuple tuple_struct map struct ignored_any
    }
}

impl IntoDeserializer<'_, Mistake> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl From<Span> for Place {
    fn from(span: Span) -> Self {
        (&span.start).into()
    }
}

impl From<&Marker> for Place {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

fn mistake(at: Place, what: &str) -> Mistake {
    Mistake { at: Some(at), what: what.to_owned() }
}

impl Mistake {
    /// `at` is where, unless something inside of it knows better.
    fn within(mut self, at: Place) -> Self {
        self.at.get_or_insert(at);
        self
    }
}

impl From<ScanError> for Mistake {
    fn from(error: ScanError) -> Self {
        mistake(error.marker().into(), "no YAML from here on")
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.at {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    /// Without the text, which may quote the file.
    fn custom<T: fmt::Display>(_text: T) -> Self {
        Self { at: None, what: "another value is expected".to_owned() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "a truth value",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) => "a text",
            Unexpected::Unit | Unexpected::Option => "nothing",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a mapping",
            _ => "something else",
        };
        Self { at: None, what: format!("{found} instead of {expected}") }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { at: None, what: format!("`{field}` is missing") }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self { at: None, what: format!("`{field}` is there twice") }
    }
}
