//! CEL's own conformance cases. Each must come to CEL's result, or the table says what Foldline gives instead and which
//! reason of `differences.md` it has. `BLESS=1` writes down what is given today, with `?` for a reason that is to be found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use foldline_api::json;
use foldline_api::time::Timestamp;
use foldline_api::value::Value;

use super::table::{agrees, outcome};

/// A case: name, expression, event, CEL's result; where Foldline differs, its own result and the reason.
struct Case<'t> {
    name: &'t str,
    source: String,
    event: &'t str,
    wanted: &'t str,
    differs: Option<(&'t str, &'t str)>,
}

fn cases(table: &str) -> impl Iterator<Item = Case<'_>> {
    table.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let &[name, source, event, wanted, ref rest @ ..] = cells.as_slice() else {
            panic!("{line:?} has too few cells")
        };
        let differs = match rest {
            [] => None,
            [given, reason] => Some((*given, *reason)),
            _ => panic!("{line:?} has a wrong number of cells"),
        };
        let source = serde_json::from_str(source).unwrap();
        Case { name, source, event, wanted, differs }
    })
}

/// Whether `got`, an outcome, is CEL's result.
fn is_met(got: &str, wanted: &str) -> bool {
    let failed = got.starts_with("error: ") || got.starts_with("compile: ");
    if wanted == "error" || failed {
        return wanted == "error" && failed;
    }
    if let Some(moment) = wanted.strip_prefix("timestamp:") {
        let (seconds, nanos) = moment.split_once('.').unwrap();
        let nanos_of = |t: Timestamp| i128::from(t.micros()) * 1_000;
        let wanted =
            seconds.parse::<i128>().unwrap() * 1_000_000_000 + nanos.parse::<i128>().unwrap();
        return got.trim_matches('"').parse::<Timestamp>().is_ok_and(|t| nanos_of(t) == wanted);
    }
    if let Some(span) = wanted.strip_prefix("duration:") {
        let (seconds, nanos) = span.split_once(':').unwrap();
        let wanted = seconds.parse::<f64>().unwrap() + nanos.parse::<f64>().unwrap() / 1e9;
        let got = got.trim_matches('"').strip_suffix('s').and_then(|text| text.parse::<f64>().ok());
        return got.is_some_and(|got| got == wanted);
    }
    match (json::parse(got.as_bytes()), json::parse(wanted.as_bytes())) {
        (Ok(got), Ok(wanted)) => same(&got, &wanted),
        // What JSON has not: NaN and the infinities.
        _ => got == wanted,
    }
}

/// Equal, numbers as the doubles that CEL has where one of them is no integer.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Int(_) | Value::Decimal(_), Value::Int(_) | Value::Decimal(_)) => {
            let double = |value: &Value| json::to_string(value).parse::<f64>().unwrap();
            double(a) == double(b)
        }
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(&**b).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && same(a.1, b.1))
        }
        (a, b) => a == b,
    }
}

/// The reasons that `differences.md` names: the first cell of each row of its table.
fn reasons() -> BTreeSet<String> {
    let page = foldline_testkit::page::text("language/tests/fixtures/cel/differences.md");
    let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    page.lines().filter_map(row).collect()
}

#[test]
fn cels_own_cases_come_to_cels_results_or_differ_for_a_reason() {
    let file = Path::new("tests/fixtures/cel/conformance.tsv");
    let table = &std::fs::read_to_string(file).unwrap();
    let (mut wrong, mut blessed) = (String::new(), String::new());
    let mut sections: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for line in table.lines().take_while(|line| line.starts_with('#')) {
        let _ = writeln!(blessed, "{line}");
    }
    for case in cases(table) {
        let got = outcome(&case.source, case.event).replace(['\t', '\n'], " ");
        let met = is_met(&got, case.wanted);
        let section = sections.entry(case.name.split('/').next().unwrap()).or_default();
        section.0 += 1;
        section.1 += u32::from(!met);
        let fine = match case.differs {
            None => met,
            Some((given, _)) => !met && agrees(&got, given),
        };
        let reason = case.differs.map_or("?", |(_, reason)| reason);
        if !fine || reason == "?" && !met {
            let _ = writeln!(
                wrong,
                "{}: {}\n  CEL   {}\n  given {got}",
                case.name, case.source, case.wanted
            );
        }
        used.extend((!met).then(|| reason.to_owned()));
        let source = serde_json::to_string(&case.source).unwrap();
        let _ = write!(blessed, "{}\t{source}\t{}\t{}", case.name, case.event, case.wanted);
        let _ = if met { writeln!(blessed) } else { writeln!(blessed, "\t{got}\t{reason}") };
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(file, blessed).unwrap();
        return;
    }
    println!("cases and differences by section: {sections:?}");
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(used, reasons(), "the reasons in differences.md are those that the table gives");
    let count: u32 = sections.values().map(|(count, _)| count).sum();
    assert!(count > 1_500, "{count} cases");
}
