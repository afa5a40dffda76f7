//! `test_policies`: limits on rates, times and numbers.
