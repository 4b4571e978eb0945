//! The method.

use redirector::context::{ConditionError, MethodsCondition, parse_method};

use crate::{ask_for, methods};

#[test]
fn one_of_the_methods_is_enough() {
    let condition = methods(&["POST", "GET", "POST"]);
    let takes = |method: &str| ask_for(method, "/", &[], |request| condition.matches(request));
    assert!(takes("GET") && takes("POST"));
    assert!(!takes("PUT") && !takes("HEAD") && !takes("get") && !takes("GE") && !takes("GETS"));
    assert_eq!(condition.to_string(), "method GET or POST");
    assert_eq!(condition, methods(&["GET", "POST"]));
    assert!(ask_for("PURGE", "/", &[], |request| methods(&["PURGE"]).matches(request)));
}

#[test]
fn methods_that_nobody_sends_are_refused() {
    for bad in ["", "GET POST", "GET,POST", "G\u{c9}T", "A\nB", &"M".repeat(33)] {
        assert_eq!(parse_method(bad), Err(ConditionError::Method(bad.to_owned())), "{bad:?}");
    }
    let error = parse_method("get").unwrap_err();
    assert_eq!(error.to_string(), "methods are case-sensitive: write GET");
    assert_eq!(parse_method("purge").unwrap().as_str(), "purge");
    assert!(MethodsCondition::try_from(Vec::new()).is_err());
    assert!(
        MethodsCondition::try_from((0..17).map(|number| format!("M{number}")).collect::<Vec<_>>()).is_err()
    );
}
