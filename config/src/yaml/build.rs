//! In: YAML text. Out: the tree of its only document, or the first flaw.

use std::collections::{BTreeSet, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Entry, Flaw, Node, Position, Value, scalar};

/// Bytes of a file. Beyla's complete example has 12 KiB.
const MOST_BYTES: usize = 1 << 20;
/// Collections inside of collections. Beyla's keys reach eight.
const MOST_DEPTH: usize = 64;
/// Nodes after aliases are put in place: what bounds "billion laughs".
const MOST_NODES: usize = 100_000;

/// The document in `text`, `None` if there is none.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, Flaw> {
    let start = Position { line: 1, column: 1 };
    if text.len() > MOST_BYTES {
        return Err(Flaw { at: start, message: format!("longer than {MOST_BYTES} bytes, no configuration file is") });
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Flaw {
            at: Position { line: error.marker().line(), column: error.marker().col() + 1 },
            message: format!("not YAML: {}{}", error.info(), hint(error.info())),
        })?;
        builder.event(event, position(span))?;
    }
    Ok(builder.root)
}

fn position(span: Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

/// A collection whose end was not reached.
struct Open {
    at: Position,
    anchor: usize,
    /// Nodes made before it, to know its weight at the end.
    nodes_before: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, keys: BTreeSet<String>, merged: Vec<Node>, key: Option<(String, Position)> },
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), Flaw> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(flaw(at, "a second document; a configuration is one"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Alias(anchor) => {
                let Some((node, weight)) = self.anchors.get(&anchor) else {
                    return Err(flaw(at, "an alias to a node that is not complete"));
                };
                // Positions stay those of the anchor: that is where its value can be corrected.
                let (node, weight) = (node.clone(), *weight);
                self.count(weight, at)?;
                self.add(node, at)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, at)?;
                let quoted = style != ScalarStyle::Plain || tag.is_some_and(|tag| is_string(&tag));
                let node = Node { at, value: scalar(text.into_owned(), quoted) };
                if anchor != 0 {
                    self.anchors.insert(anchor, (node.clone(), 1));
                }
                self.add(node, at)
            }
            Event::SequenceStart(anchor, _) => self.start(at, anchor, Kind::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                let kind = Kind::Map { entries: Vec::new(), keys: BTreeSet::new(), merged: Vec::new(), key: None };
                self.start(at, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
        }
    }

    fn count(&mut self, more: usize, at: Position) -> Result<(), Flaw> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MOST_NODES {
            return Err(Flaw { at, message: format!("more than {MOST_NODES} values, aliases counted each time") });
        }
        Ok(())
    }

    fn start(&mut self, at: Position, anchor: usize, kind: Kind) -> Result<(), Flaw> {
        let nodes_before = self.nodes;
        self.count(1, at)?;
        if self.open.len() >= MOST_DEPTH {
            return Err(Flaw { at, message: format!("nested deeper than {MOST_DEPTH}") });
        }
        if let Some(Open { kind: Kind::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(flaw(at, "a key that is a collection; keys are names"));
        }
        self.open.push(Open { at, anchor, nodes_before, kind });
        Ok(())
    }

    fn end(&mut self, at: Position) -> Result<(), Flaw> {
        let Some(open) = self.open.pop() else { return Err(flaw(at, "an end without a start")) };
        let value = match open.kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { entries, keys, merged, .. } => Value::Map(merge(entries, keys, merged)?),
        };
        let node = Node { at: open.at, value };
        if open.anchor != 0 {
            let weight = self.nodes.saturating_sub(open.nodes_before);
            // The anchor's own copy counts, too: it is kept until the end.
            self.count(weight, at)?;
            self.anchors.insert(open.anchor, (node.clone(), weight));
        }
        self.add(node, at)
    }

    /// Puts a complete node where it belongs: into the innermost open collection, as its next key or value.
    fn add(&mut self, node: Node, at: Position) -> Result<(), Flaw> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { kind: Kind::List(items), .. }) => items.push(node),
            Some(Open { kind: Kind::Map { entries, keys, merged, key }, .. }) => match key.take() {
                None => *key = Some((key_text(node, at)?, at)),
                Some((name, _)) if name == "<<" => merged.push(node),
                Some((name, key_at)) => {
                    if !keys.insert(name.clone()) {
                        return Err(Flaw { at: key_at, message: format!("key `{name}` a second time in one mapping") });
                    }
                    entries.push(Entry { key: name, key_at, node });
                }
            },
        }
        Ok(())
    }
}

fn flaw(at: Position, message: &str) -> Flaw {
    Flaw { at, message: message.to_owned() }
}

fn is_string(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == "str"
}

fn key_text(node: Node, at: Position) -> Result<String, Flaw> {
    match node.value {
        Value::Scalar { text, .. } => Ok(text),
        Value::Null => Ok("null".to_owned()),
        Value::List(_) | Value::Map(_) => Err(flaw(at, "a key that is a collection; keys are names")),
    }
}

/// Adds what `<<` brings for keys that the mapping itself does not have; earlier merges win.
fn merge(mut entries: Vec<Entry>, mut keys: BTreeSet<String>, merged: Vec<Node>) -> Result<Vec<Entry>, Flaw> {
    for node in merged {
        let maps = match node.value {
            Value::List(items) => items,
            _ => vec![node],
        };
        for map in maps {
            let Value::Map(more) = map.value else { return Err(flaw(map.at, "`<<` merges mappings only")) };
            entries.extend(more.into_iter().filter(|entry| keys.insert(entry.key.clone())));
        }
    }
    Ok(entries)
}

/// What is behind the usual mistake.
fn hint(said: &str) -> &'static str {
    // A list or a mapping on one line: `[/users/{id}]`.
    if said.contains("flow sequence") || said.contains("flow mapping") {
        "; a text with any of {}[], has to stand in quotes there"
    } else {
        ""
    }
}
