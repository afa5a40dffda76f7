//! Metrics of a server in Prometheus' text format, on a second listener: `cargo run --example metrics -- 127.0.0.1:1234
//! --metrics 127.0.0.1:9464`, then `nc 127.0.0.1 1234` and `curl 127.0.0.1:9464/metrics`.

mod common;

use std::io::{stdout, Write};
use std::thread;
use std::time::Duration;

use socketserver::{handler, Connection, HandlerResult, ServerBuilder, ServerHandle, Stats};

/// The counters as Prometheus reads them.
fn text(s: &Stats) -> String {
    let parts = s.panicked + s.timed_out + s.crashed + s.peer_faults; // of the failed; the rest are errors of the handler
    let (failed, t) = (s.failed.saturating_sub(parts), &s.times);
    let [p50, p90, p99, p999, sum] = [t.p50, t.p90, t.p99, t.p999, t.sum].map(|time| time.as_secs_f64());
    format!(
        "\
# HELP server_connections Connections that are served now.
# TYPE server_connections gauge
server_connections {}
# HELP server_connections_limit The most connections that are served at once.
# TYPE server_connections_limit gauge
server_connections_limit {}
# HELP server_accepted_total Connections that were accepted.
# TYPE server_accepted_total counter
server_accepted_total {}
# HELP server_closed_total Connections that were closed, by how they ended.
# TYPE server_closed_total counter
server_closed_total{{outcome=\"served\"}} {}
server_closed_total{{outcome=\"failed\"}} {failed}
server_closed_total{{outcome=\"panicked\"}} {}
server_closed_total{{outcome=\"timed_out\"}} {}
server_closed_total{{outcome=\"crashed\"}} {}
server_closed_total{{outcome=\"peer_fault\"}} {}
server_closed_total{{outcome=\"disconnected\"}} {}
server_closed_total{{outcome=\"refused\"}} {}
# HELP server_accept_errors_total Calls of accept that failed.
# TYPE server_accept_errors_total counter
server_accept_errors_total {}
# HELP server_connection_duration_seconds The time from the accept to the close.
# TYPE server_connection_duration_seconds summary
server_connection_duration_seconds{{quantile=\"0.5\"}} {p50}
server_connection_duration_seconds{{quantile=\"0.9\"}} {p90}
server_connection_duration_seconds{{quantile=\"0.99\"}} {p99}
server_connection_duration_seconds{{quantile=\"0.999\"}} {p999}
server_connection_duration_seconds_sum {sum}
server_connection_duration_seconds_count {}
",
        s.active,
        s.max_connections,
        s.accepted,
        s.served,
        s.panicked,
        s.timed_out,
        s.crashed,
        s.peer_faults,
        s.disconnected,
        s.refused,
        s.accept_errors,
        t.count,
    )
}

/// Answers one request of HTTP, whatever its path is.
fn scrape(conn: &mut Connection, server: &ServerHandle) -> HandlerResult {
    if !conn.next_request()? {
        return Ok(());
    }
    while conn.next_line()?.is_some_and(|line| !line.is_empty()) {} // the request and its headers
    let body = text(&server.stats());
    let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length:";
    conn.send_line(format!("{head} {}\r\n\r\n{body}", body.len()).trim_end())
}

fn main() -> socketserver::Result<()> {
    let own = &[("metrics ADDR", "where Prometheus asks [127.0.0.1:0]")];
    let args = common::args("Greets each client, and tells Prometheus how that went.", &[own, common::LIMITS]);
    let greet = handler(|conn| conn.send_line("Thank you for connecting"));
    let builder = ServerBuilder::new().handle_signals().observer(()); // `()` measures the times
    let mut server = args.limits(builder).bind(&args.addr, greet)?;
    common::listening(server.local_addr());

    // A listener of its own: a crowd at the first one does not hold it up, and only the monitoring can reach it.
    let handle = server.handle();
    let limit = Duration::from_secs(5);
    let builder = ServerBuilder::new().max_connections(10).idle_timeout(limit).request_timeout(limit);
    let builder = builder.restartable(Duration::from_secs(60)); // all servers of a program are, or none
    let mut metrics =
        builder.bind(args.choice("metrics", "127.0.0.1:0"), handler(move |conn| scrape(conn, &handle)))?;
    let _ = writeln!(stdout(), "metrics on {}", metrics.local_addr()); // no panic if nobody reads
    let end = metrics.handle();
    let answering = thread::spawn(move || metrics.serve_forever());

    let report = server.serve_forever()?;
    end.shutdown(); // last: it answers while the server drains
    let _ = answering.join();
    common::report(&report);
    Ok(())
}
