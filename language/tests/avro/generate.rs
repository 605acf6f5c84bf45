//! Schemas of every kind, values of theirs, what they should be read as, and paths into them.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::types::Value as Theirs;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{BigDecimal, Days, Decimal as TheirDecimal, Duration, Millis, Months, Uuid};
use foldline_api::decimal::Decimal;
use foldline_api::time::{Date, Time, Timestamp};
use foldline_api::value::Value;
use foldline_language::event::{Mask, PathSet};
use foldline_testkit::Rng;

/// Encodes, by the other library.
pub(crate) fn encode(schema: &apache_avro::Schema, value: Theirs) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    GenericDatumWriter::builder(schema)
        .build()
        .and_then(|writer| writer.write_value(&mut bytes, value))
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A type as it was drawn. Named ones stand in [`Generator::named`].
#[derive(Clone, Debug)]
pub(crate) enum Ty {
    Plain(&'static str),
    /// A base type and its logical type.
    Logical(&'static str, &'static str),
    Decimal {
        precision: usize,
        scale: usize,
    },
    Named(usize),
    Array(Box<Ty>),
    Map(Box<Ty>),
    Union(Vec<Ty>),
}

#[derive(Clone, Debug)]
pub(crate) enum Def {
    Fixed(usize),
    Uuid,
    Duration,
    Decimal { size: usize, precision: usize, scale: usize },
    Enum(Vec<&'static str>),
    Record(Vec<(&'static str, Ty)>),
}

#[derive(Debug)]
pub(crate) struct Generator {
    pub(crate) rng: Rng,
    /// What has no namespace cannot be named where there is one.
    bare: bool,
    named: Vec<(String, Def)>,
}

const PLAIN: &[&str] =
    &["null", "boolean", "int", "long", "float", "double", "bytes", "string", "long", "string"];
const LOGICAL: &[(&str, &str)] = &[
    ("int", "date"),
    ("int", "time-millis"),
    ("long", "time-micros"),
    ("long", "timestamp-millis"),
    ("long", "timestamp-micros"),
    ("long", "timestamp-nanos"),
    ("long", "local-timestamp-millis"),
    ("long", "local-timestamp-micros"),
    ("long", "local-timestamp-nanos"),
    ("string", "uuid"),
    ("bytes", "big-decimal"),
    ("long", "unheard-of"),
];
const FIELDS: &[&str] = &["id", "name", "z", "At", "_x", "items", "b2", "owner"];
const KEYS: &[&str] = &["id", "z", "ключ", ""];
const SYMBOLS: &[&str] = &["NEW", "done", "_3", "B"];

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let bare = rng.chance(300);
        Generator { rng, bare, named: Vec::new() }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap()
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn name(&mut self, def: Def) -> usize {
        let namespace = if self.bare { "" } else { self.pick(&["com.shop.", "a."]) };
        let at = self.named.len();
        self.named.push((format!("{namespace}N{at}"), def));
        at
    }

    /// A schema.
    pub(crate) fn schema(&mut self) -> Ty {
        if self.rng.chance(600) { self.record(0) } else { self.ty(0) }
    }

    fn ty(&mut self, depth: usize) -> Ty {
        let deep = depth > 3;
        match self.below(if deep { 6 } else { 12 }) {
            0..=2 => Ty::Plain(self.pick(PLAIN)),
            3 => {
                let (base, logical) = self.pick(LOGICAL);
                Ty::Logical(base, logical)
            }
            4 => {
                let precision = 1 + self.below(60);
                Ty::Decimal { precision, scale: self.below(precision + 1) }
            }
            5 => self.leaf(),
            6 => Ty::Array(Box::new(self.ty(depth + 1))),
            7 => Ty::Map(Box::new(self.ty(depth + 1))),
            8 | 9 => self.union(depth + 1),
            _ => self.record(depth + 1),
        }
    }

    fn leaf(&mut self) -> Ty {
        if !self.named.is_empty() && self.rng.chance(300) {
            let at = self.below(self.named.len());
            if !matches!(self.named[at].1, Def::Record(_)) {
                return Ty::Named(at);
            }
        }
        let def = match self.below(5) {
            0 => Def::Fixed(self.below(20)),
            1 => Def::Uuid,
            2 => Def::Duration,
            3 => {
                let size = 1 + self.below(24);
                let most = ((8.0 * size as f64 - 1.0) * 2f64.log10()).floor() as usize;
                let precision = 1 + self.below(most);
                Def::Decimal { size, precision, scale: self.below(precision + 1) }
            }
            _ => Def::Enum(SYMBOLS[..=self.below(SYMBOLS.len())].to_vec()),
        };
        Ty::Named(self.name(def))
    }

    /// Branches that may stand together: one of each base type, and named ones.
    fn union(&mut self, depth: usize) -> Ty {
        let mut branches: Vec<Ty> = Vec::new();
        for _ in 0..=self.below(4) {
            let branch = if self.rng.chance(400) { self.record(depth) } else { self.ty(depth) };
            let kind = |ty: &Ty| match ty {
                Ty::Plain(base) | Ty::Logical(base, _) => (*base).to_owned(),
                Ty::Decimal { .. } => "bytes".to_owned(),
                Ty::Named(at) => format!("{at}"),
                Ty::Array(_) => "array".to_owned(),
                Ty::Map(_) => "map".to_owned(),
                Ty::Union(_) => "union".to_owned(),
            };
            let is_new = branches.iter().all(|known| kind(known) != kind(&branch));
            if is_new && !matches!(branch, Ty::Union(_)) {
                branches.push(branch);
            }
        }
        if branches.is_empty() {
            branches.push(Ty::Plain("null"));
        }
        Ty::Union(branches)
    }

    fn record(&mut self, depth: usize) -> Ty {
        let at = self.name(Def::Record(Vec::new()));
        let mut fields: Vec<(&'static str, Ty)> = Vec::new();
        for _ in 0..self.below(6) {
            let name = self.pick(FIELDS);
            if fields.iter().any(|(known, _)| *known == name) {
                continue;
            }
            // The record itself, or one around it.
            let ty = if self.rng.chance(120) {
                Ty::Union(vec![Ty::Plain("null"), Ty::Named(at)])
            } else {
                self.ty(depth)
            };
            fields.push((name, ty));
        }
        self.named[at].1 = Def::Record(fields);
        Ty::Named(at)
    }

    pub(crate) fn json(&self, ty: &Ty) -> String {
        self.write(ty, &mut vec![false; self.named.len()])
    }

    fn write(&self, ty: &Ty, written: &mut [bool]) -> String {
        match ty {
            Ty::Plain(base) => format!("\"{base}\""),
            Ty::Logical(base, logical) => {
                format!(r#"{{"type":"{base}","logicalType":"{logical}"}}"#)
            }
            Ty::Decimal { precision, scale } => format!(
                r#"{{"type":"bytes","logicalType":"decimal","precision":{precision},"scale":{scale}}}"#
            ),
            Ty::Array(items) => {
                format!(r#"{{"type":"array","items":{}}}"#, self.write(items, written))
            }
            Ty::Map(values) => {
                format!(r#"{{"type":"map","values":{}}}"#, self.write(values, written))
            }
            Ty::Union(branches) => {
                let branches: Vec<String> =
                    branches.iter().map(|branch| self.write(branch, written)).collect();
                format!("[{}]", branches.join(","))
            }
            Ty::Named(at) => self.write_named(*at, written),
        }
    }

    fn write_named(&self, at: usize, written: &mut [bool]) -> String {
        let (name, def) = &self.named[at];
        let (namespace, short) = name.rsplit_once('.').unwrap_or(("", name));
        if std::mem::replace(&mut written[at], true) {
            return format!("\"{name}\"");
        }
        let namespace = match namespace {
            "" => String::new(),
            some => format!(r#""namespace":"{some}","#),
        };
        let head = format!(r#"{{"name":"{short}",{namespace}"type":"#);
        match def {
            Def::Fixed(size) => format!(r#"{head}"fixed","size":{size}}}"#),
            Def::Uuid => format!(r#"{head}"fixed","size":16,"logicalType":"uuid"}}"#),
            Def::Duration => format!(r#"{head}"fixed","size":12,"logicalType":"duration"}}"#),
            Def::Decimal { size, precision, scale } => format!(
                r#"{head}"fixed","size":{size},"logicalType":"decimal","precision":{precision},"scale":{scale}}}"#
            ),
            Def::Enum(symbols) => {
                format!(r#"{head}"enum","symbols":["{}"]}}"#, symbols.join("\",\""))
            }
            Def::Record(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, ty)| {
                        format!(r#"{{"name":"{name}","type":{}}}"#, self.write(ty, written))
                    })
                    .collect();
                format!(r#"{head}"record","fields":[{}]}}"#, fields.join(","))
            }
        }
    }

    /// A value, as it is given to the encoder and as it should be read. `tells`: a record there has its name.
    pub(crate) fn value(&mut self, ty: &Ty, tells: bool, depth: usize) -> (Theirs, Value) {
        match ty {
            Ty::Plain(base) => self.plain(base),
            Ty::Logical(_, logical) => self.logical(logical),
            Ty::Decimal { precision, scale } => self.decimal(*precision, *scale),
            Ty::Array(items) => {
                let count = if depth > 6 { 0 } else { self.below(4) };
                let (theirs, ours) =
                    (0..count).map(|_| self.value(items, false, depth + 1)).unzip();
                (Theirs::Array(theirs), Value::list(ours))
            }
            Ty::Map(values) => {
                let mut theirs = HashMap::new();
                let mut ours = Vec::new();
                for _ in 0..if depth > 6 { 0 } else { self.below(4) } {
                    let key = self.pick(KEYS);
                    if theirs.contains_key(key) {
                        continue;
                    }
                    let (their, our) = self.value(values, false, depth + 1);
                    theirs.insert(key.to_owned(), their);
                    ours.push((Arc::from(key), our));
                }
                (Theirs::Map(theirs), Value::map(ours))
            }
            Ty::Union(branches) => {
                let mut at = self.below(branches.len());
                // A record that holds itself ends somewhere.
                let null = branches.iter().position(|b| matches!(b, Ty::Plain("null")));
                if let Some(null) = null.filter(|_| depth > 6) {
                    at = null;
                }
                let is_record = |ty: &Ty| match ty {
                    Ty::Named(at) => matches!(self.named[*at].1, Def::Record(_)),
                    _ => false,
                };
                let several = branches.iter().filter(|branch| is_record(branch)).count() > 1;
                let (theirs, ours) = self.value(&branches[at], tells || several, depth + 1);
                (Theirs::Union(u32::try_from(at).unwrap(), Box::new(theirs)), ours)
            }
            Ty::Named(at) => self.named_value(*at, tells, depth),
        }
    }

    fn plain(&mut self, base: &str) -> (Theirs, Value) {
        let long = self.long();
        match base {
            "null" => (Theirs::Null, Value::Null),
            "boolean" => (Theirs::Boolean(long > 0), Value::Bool(long > 0)),
            "int" => {
                let int = long as i32;
                (Theirs::Int(int), Value::Int(i64::from(int)))
            }
            "long" => (Theirs::Long(long), Value::Int(long)),
            "float" => {
                let float = long as f32 / 7.0;
                (Theirs::Float(float), Value::Double(f64::from(float)))
            }
            "double" => (Theirs::Double(long as f64 / 7.0), Value::Double(long as f64 / 7.0)),
            "bytes" => {
                let bytes = self.bytes(20);
                (Theirs::Bytes(bytes.clone()), Value::Bytes(Arc::from(bytes)))
            }
            _ => {
                let text = self.pick(&["", "a", "größer", "\u{1f4da} \" \n", "2026-01-01"]);
                (Theirs::String(text.to_owned()), Value::text(text))
            }
        }
    }

    /// Of every length.
    fn long(&mut self) -> i64 {
        let long = self.rng.next_u64().cast_signed();
        long >> self.below(64)
    }

    fn bytes(&mut self, bound: usize) -> Vec<u8> {
        let len = self.below(bound);
        (0..len).map(|_| self.rng.next_u64() as u8).collect()
    }

    fn logical(&mut self, logical: &str) -> (Theirs, Value) {
        let day = i64::try_from(self.rng.below(1_000_000)).unwrap() - 600_000;
        let micro = i64::try_from(self.rng.below(86_400_000_000)).unwrap();
        let moment = |micros: i64| Value::Timestamp(Timestamp::from_micros(micros).unwrap());
        let millis = day * 86_400_000 + micro / 1_000;
        let micros = day * 86_400_000_000 + micro;
        // Nanoseconds reach three hundred years; half a microsecond counts as one.
        let nanos = (day % 100_000) * 86_400_000_000_000 + micro * 1_000 + 499;
        let near = moment((day % 100_000) * 86_400_000_000 + micro);
        match logical {
            "date" => {
                let day = i32::try_from(day).unwrap();
                (Theirs::Date(day), Value::Date(Date::from_days(day).unwrap()))
            }
            "time-millis" => {
                let time = Time::from_micros(micro / 1_000 * 1_000).unwrap();
                (Theirs::TimeMillis(i32::try_from(micro / 1_000).unwrap()), Value::Time(time))
            }
            "time-micros" => {
                (Theirs::TimeMicros(micro), Value::Time(Time::from_micros(micro).unwrap()))
            }
            "timestamp-millis" => (Theirs::TimestampMillis(millis), moment(millis * 1_000)),
            "local-timestamp-millis" => {
                (Theirs::LocalTimestampMillis(millis), moment(millis * 1_000))
            }
            "timestamp-micros" => (Theirs::TimestampMicros(micros), moment(micros)),
            "local-timestamp-micros" => (Theirs::LocalTimestampMicros(micros), moment(micros)),
            "timestamp-nanos" => (Theirs::TimestampNanos(nanos), near),
            "local-timestamp-nanos" => (Theirs::LocalTimestampNanos(nanos), near),
            "uuid" => self.uuid(),
            "big-decimal" => {
                let (text, ours) = self.number(40, 12);
                (Theirs::BigDecimal(text.parse().unwrap()), ours)
            }
            _ => (Theirs::Long(micros), Value::Int(micros)),
        }
    }

    fn uuid(&mut self) -> (Theirs, Value) {
        let (high, low) = (self.rng.next_u64(), self.rng.next_u64());
        let uuid = Uuid::from_u64_pair(high, low);
        (Theirs::Uuid(uuid), Value::Uuid(uuid.into_bytes()))
    }

    /// A number of at most so many digits, as text and as it should be read.
    fn number(&mut self, precision: usize, scale: usize) -> (String, Value) {
        let digits = 1 + self.below(precision);
        let mut text: String =
            (0..digits).map(|_| char::from(b'0' + self.below(10) as u8)).collect();
        text = format!("{text:0>width$}", width = scale + 1);
        text.insert(text.len() - scale, '.');
        let sign = if self.rng.chance(500) { "-" } else { "" };
        let text = format!("{sign}{}", text.trim_end_matches('.'));
        let ours = text.parse::<Decimal>().unwrap();
        (text, Value::Decimal(ours))
    }

    fn decimal(&mut self, precision: usize, scale: usize) -> (Theirs, Value) {
        let (text, ours) = self.number(precision, scale);
        let number: BigDecimal = text.parse().unwrap();
        let number = number.with_scale(i64::try_from(scale).unwrap());
        let unscaled = number.as_bigint_and_exponent().0.to_signed_bytes_be();
        (Theirs::Decimal(TheirDecimal::from(unscaled)), ours)
    }

    fn named_value(&mut self, at: usize, tells: bool, depth: usize) -> (Theirs, Value) {
        let (name, def) = self.named[at].clone();
        match def {
            Def::Fixed(size) => {
                let bytes: Vec<u8> = (0..size).map(|_| self.rng.next_u64() as u8).collect();
                (Theirs::Fixed(size, bytes.clone()), Value::Bytes(Arc::from(bytes)))
            }
            Def::Uuid => self.uuid(),
            Def::Duration => {
                let mut part = || self.rng.next_u64() as u32;
                let (months, days, millis) = (part(), part(), part());
                let theirs =
                    Duration::new(Months::new(months), Days::new(days), Millis::new(millis));
                let entry = |name: &str, part: u32| (Arc::from(name), Value::Int(i64::from(part)));
                let ours = [("months", months), ("days", days), ("millis", millis)];
                let ours = ours.into_iter().map(|(name, part)| entry(name, part)).collect();
                (Theirs::Duration(theirs), Value::map(ours))
            }
            Def::Decimal { precision, scale, .. } => self.decimal(precision, scale),
            Def::Enum(symbols) => {
                let at = self.below(symbols.len());
                let theirs = Theirs::Enum(u32::try_from(at).unwrap(), symbols[at].to_owned());
                (theirs, Value::text(symbols[at]))
            }
            Def::Record(fields) => {
                let (mut theirs, mut ours) = (Vec::new(), Vec::new());
                for (field, ty) in &fields {
                    let (their, our) = self.value(ty, false, depth + 1);
                    theirs.push(((*field).to_owned(), their));
                    ours.push((Arc::from(*field), our));
                }
                if tells {
                    ours.push((Arc::from("@record"), Value::text(&name)));
                }
                (Theirs::Record(theirs), Value::map(ours))
            }
        }
    }

    /// What a projection may name.
    pub(crate) fn mask(&mut self) -> (Mask, usize) {
        let mut paths = PathSet::default();
        for _ in 0..1 + self.below(5) {
            let depth = self.below(4);
            let path: Vec<Arc<str>> = (0..depth + usize::from(self.rng.chance(900)))
                .map(|_| match self.below(12) {
                    0 => Arc::from("@record"),
                    1 => Arc::from(self.pick(&["months", "absent", ""])),
                    _ => Arc::from(self.pick(FIELDS)),
                })
                .collect();
            paths.insert(&path);
        }
        paths.mask()
    }
}
