use super::*;

fn coerce(ty: &str, json: &str) -> Result<String, String> {
    let value = json::parse(json.as_bytes()).unwrap();
    let ty = ColumnType::parse(ty).unwrap();
    ty.coerce(value).map(|v| json::to_string(&v)).map_err(|e| e.to_string())
}

#[test]
fn values_are_brought_to_their_type() {
    for (ty, json, expect) in [
        ("bigint", "\"42\"", "42"),
        ("bigint", "5.0", "5"),
        ("integer", "2147483647", "2147483647"),
        ("numeric(12,2)", "\"1.999\"", "2.00"),
        ("numeric(12,2)", "5", "5.00"),
        ("numeric", "1.50", "1.5"),
        ("text", "12.10", "\"12.10\""),
        ("varchar(3)", "\"äöü\"", "\"äöü\""),
        ("timestamptz", "\"2026-01-01T00:00:00+01:00\"", "\"2025-12-31T23:00:00Z\""),
        (
            "uuid",
            "\"6F1C8A52-94A8-4C1D-9D3E-0C8F0C7B1A01\"",
            "\"6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01\"",
        ),
        ("text[]", "[1,null,\"a\"]", "[\"1\",null,\"a\"]"),
        ("jsonb", "{\"b\":1.0,\"a\":[1.50]}", "{\"a\":[1.5],\"b\":1}"),
        ("double precision", "1e2", "100.0"),
        ("bytea", "\"AP8=\"", "\"AP8=\""),
    ] {
        assert_eq!(coerce(ty, json), Ok(expect.to_owned()), "{ty} {json}");
    }
}

#[test]
fn what_does_not_fit_is_refused_without_its_content() {
    for (ty, json) in [
        ("bigint", "9223372036854775808"),
        ("bigint", "1.5"),
        ("bigint", "\"many\""),
        ("smallint", "40000"),
        ("numeric(4,2)", "99.999"),
        ("text", "\"a\\u0000b\""),
        ("text", "{}"),
        ("varchar(3)", "\"secret\""),
        ("timestamptz", "1700000000000"),
        ("date", "\"2026-01-01T00:00:00Z\""),
        ("boolean", "1"),
        ("double precision", "1e999"),
        ("jsonb", "{\"a\":\"\\u0000\"}"),
    ] {
        let error = coerce(ty, json).unwrap_err();
        assert!(error.contains("does not fit") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn what_a_store_returns_coerces_to_itself() {
    for (ty, json) in [
        ("numeric(12,2)", "5"),
        ("real", "0.1"),
        ("double precision", "0.1"),
        ("time", "\"10:00\""),
        ("date", "\"2026-01-01\""),
        ("jsonb", "{\"a\":1e2}"),
    ] {
        let parsed = ColumnType::parse(ty).unwrap();
        let once = parsed.coerce(json::parse(json.as_bytes()).unwrap()).unwrap();
        let text = json::to_string(&once);
        let back = parsed.from_json(json::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(once, back, "{ty}");
    }
}
