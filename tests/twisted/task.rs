//! `test_task` and `test_internet`: timers, and calls from threads.
