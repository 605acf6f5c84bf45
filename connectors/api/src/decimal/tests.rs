use super::*;

fn d(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[test]
fn text_reads_back_with_its_digits() {
    for text in ["0", "1.20", "-0.05", "123456789012345678901234567890.123456789"] {
        assert_eq!(d(text).to_string(), text);
    }
    assert_eq!(d("1.5e3").to_string(), "1500");
    assert_eq!(d("12e-4").to_string(), "0.0012");
    assert_eq!(d(".5").to_string(), "0.5");
    assert_eq!(d("1e30").to_string(), format!("1{}", "0".repeat(30)));
    for wrong in ["", "-", "1e", "1.2.3", "0x1", "1e+-2", "NaN", "1e99999999999"] {
        assert!(wrong.parse::<Decimal>().is_err(), "{wrong}");
    }
}

#[test]
fn rounding_is_half_away_from_zero() {
    assert_eq!(d("1.999").round(2).to_string(), "2.00");
    assert_eq!(d("0.005").round(2).to_string(), "0.01");
    assert_eq!(d("-0.005").round(2).to_string(), "-0.01");
    assert_eq!(d("5").round(2).to_string(), "5.00");
    assert_eq!(d("12345678901234567890.125").round(2).to_string(), "12345678901234567890.13");
    assert_eq!(d("-12345678901234567890.125").round(2).to_string(), "-12345678901234567890.13");
}

#[test]
fn arithmetic_is_exact_across_sizes() {
    assert_eq!(d("0.1").plus(&d("0.2")), d("0.3"));
    assert_eq!(d("9223372036854775807").plus(&d("1")).to_string(), "9223372036854775808");
    assert_eq!(d("9223372036854775807").times(&d("10")).to_string(), "92233720368547758070");
    assert_eq!(d("1").divided_by(&d("3")).unwrap().to_string(), "0.3333333333333333");
    assert_eq!(d("7.5").remainder(&d("2")).unwrap(), d("1.5"));
    assert_eq!(d("1").divided_by(&d("0")), Err(DecimalError::DivisionByZero));
    assert_eq!(d("5.00").to_i64(), Some(5));
    assert_eq!(d("5.01").to_i64(), None);
    assert!(d("99999999999999999999") > d("99999999999999999998.5"));
}
