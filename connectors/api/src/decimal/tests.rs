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

/// The short way for small numbers is the long way.
#[test]
fn unscaled_bytes_are_one_number_by_either_way() {
    let mut seed = 7_u64;
    for _ in 0..200_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bytes = (seed ^ seed >> 29).to_be_bytes();
        let length = usize::try_from(seed >> 61).unwrap() + 1;
        let scale = i64::try_from((seed >> 40) % 21).unwrap() - 1;
        let bytes = &bytes[..length];
        let (short, long) = (
            Decimal::from_unscaled(bytes, scale).unwrap(),
            Decimal::from_unscaled_big(bytes, scale).unwrap(),
        );
        assert_eq!(short.to_string(), long.to_string(), "{bytes:?} {scale}");
        assert_eq!(short, long);
    }
    for (bytes, shown) in
        [(&[0x80][..], "-1.28"), (&[0xff, 0x7f], "-1.29"), (&[0x7f], "1.27"), (&[0], "0.00")]
    {
        assert_eq!(Decimal::from_unscaled(bytes, 2).unwrap().to_string(), shown);
    }
}
