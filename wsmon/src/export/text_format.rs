//! OpenMetrics as Prometheus's text format 0.0.4, where the suffixes `_total` and `_info` are part
//! of a family's name, there is no type info, and there are no units.

/// The same page in the older format.
pub fn from_open_metrics(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut help = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = help.take() {
                push(&mut text, &["# HELP ", name, suffix, " ", help, "\n"]);
            }
            push(&mut text, &["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            push(&mut text, &[line, "\n"]);
        }
    }
    text
}

fn push(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_become_part_of_the_name() {
        let page = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                    a_bytes_total{b=\"# TYPE c info\"} 1\n\
                    # HELP build Version.\n# TYPE build info\nbuild_info{v=\"1\"} 1\n\
                    # HELP g G.\n# TYPE g gauge\ng 2\n# EOF\n";
        assert_eq!(
            from_open_metrics(page),
            "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\n\
             a_bytes_total{b=\"# TYPE c info\"} 1\n\
             # HELP build_info Version.\n# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n\
             # HELP g G.\n# TYPE g gauge\ng 2\n"
        );
    }
}
