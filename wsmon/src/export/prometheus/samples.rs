//! One service's samples, with its labels.

use std::fmt::{self, Display, Write};

use prometheus_client::encoding::{
    EncodeLabelKey, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};

use crate::decode::Direction;
use crate::model::histogram::Histogram;
use crate::model::service::{OTHER, ServiceLabels};

/// Labels beside those of the service.
pub type Extra<'a> = [(&'static str, &'a dyn Display)];

/// What turns a histogram's unit into the base unit.
pub const NANOSECONDS: f64 = 1e9;
pub const BYTES: f64 = 1.0;

/// Writes the samples of one service.
pub struct Samples<'a, 'e> {
    pub metric: &'a mut MetricEncoder<'e>,
    pub service: &'a ServiceLabels,
}

impl Samples<'_, '_> {
    pub fn counter(&mut self, value: u64, extra: &Extra<'_>) -> fmt::Result {
        self.metric
            .encode_family(&Labels::of(self.service, extra))?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub fn by_direction(&mut self, value: impl Fn(Direction) -> u64) -> fmt::Result {
        for direction in Direction::ALL {
            self.counter(value(direction), &[("direction", &direction.as_str())])?;
        }
        Ok(())
    }

    pub fn gauge(&mut self, value: u64, extra: &Extra<'_>) -> fmt::Result {
        self.metric
            .encode_family(&Labels::of(self.service, extra))?
            .encode_gauge(&value)
    }

    pub fn gauge_f64(&mut self, value: f64) -> fmt::Result {
        self.metric
            .encode_family(&Labels::of(self.service, &[]))?
            .encode_gauge(&value)
    }

    pub fn histogram(
        &mut self,
        histogram: &Histogram,
        unit: f64,
        extra: &Extra<'_>,
    ) -> fmt::Result {
        let buckets: Vec<_> = histogram
            .buckets()
            .map(|(edge, count)| (edge / unit, count))
            .collect();
        self.metric
            .encode_family(&Labels::of(self.service, extra))?
            .encode_histogram::<NoLabelSet>(
                histogram.sum() as f64 / unit,
                histogram.count(),
                &buckets,
                None,
            )
    }
}

pub struct Labels<'a> {
    pub service: Option<&'a ServiceLabels>,
    pub extra: &'a Extra<'a>,
}

impl<'a> Labels<'a> {
    fn of(service: &'a ServiceLabels, extra: &'a Extra<'a>) -> Self {
        Self {
            service: Some(service),
            extra,
        }
    }
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        let mut label = |key: &str, value: &dyn Display| {
            let mut label = encoder.encode_label();
            let mut key_encoder = label.encode_label_key()?;
            key.encode(&mut key_encoder)?;
            let mut value_encoder = key_encoder.encode_label_value()?;
            write!(value_encoder, "{value}")?;
            value_encoder.finish()
        };
        if let Some(service) = self.service {
            label("role", &service.role.as_str())?;
            label("hop", &service.hop.as_str())?;
            label("process", &service.process)?;
            match &service.port {
                Some(port) => label("port", port)?,
                None => label("port", &OTHER)?,
            }
            for (key, value) in [
                ("container", &service.container),
                ("pod", &service.pod),
                ("namespace", &service.namespace),
            ] {
                if let Some(value) = value {
                    label(key, value)?;
                }
            }
        }
        for (key, value) in self.extra {
            label(key, *value)?;
        }
        Ok(())
    }
}
