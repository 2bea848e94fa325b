//! Whether a configuration can be used: every contradiction is refused with a sentence.

use broadgate_proto::{limits, name};

use crate::config::{Config, collide, listener::Authorize};

impl Config {
    /// Relations between settings that their types cannot say.
    ///
    /// # Errors
    /// One sentence about the first that does not hold.
    pub fn check(&self) -> Result<(), String> {
        if self.registers.is_empty() {
            return Err("cluster.register is empty: give at least one host:port".to_owned());
        }
        for register in &self.registers {
            name::check_address(register).map_err(|error| format!("cluster.register: {error}"))?;
        }
        self.check_internal()?;
        self.check_listeners()?;
        self.check_groups()?;
        self.check_recorder()?;
        self.check_limits()
    }

    fn check_internal(&self) -> Result<(), String> {
        let internal = &self.settings.internal;
        self.credentials
            .check_bind(internal.bind)
            .map_err(|error| format!("gateway.internal.bind: {error}"))?;
        if let Some(advertise) = &internal.advertise {
            name::check_address(advertise).map_err(|error| format!("gateway.internal.advertise: {error}"))?;
        }
        if !self.settings.name.is_empty() {
            name::check_visible("gateway.name", &self.settings.name).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// An app that a setting names must be there; the one that is meant when none is named need not be.
    fn check_app(&self, app: &str) -> Result<(), String> {
        name::check_visible("app", app).map_err(|error| error.to_string())?;
        if app == name::DEFAULT_APP || self.apps.load().by_id(app).is_some() {
            return Ok(());
        }
        Err(format!("no app {app:?} is configured: `broadgate apps` lists those that are"))
    }

    fn check_groups(&self) -> Result<(), String> {
        for (index, group) in self.settings.groups.iter().enumerate() {
            let place = format!("gateway.groups[{index}]");
            self.check_app(&group.app).map_err(|error| format!("{place}: {error}"))?;
            if group.pattern != "*" {
                let prefix = group.pattern.strip_suffix('*').unwrap_or(&group.pattern);
                name::check("pattern", prefix).map_err(|error| format!("{place}: {error}"))?;
            }
            let max = limits::HISTORY_MESSAGES_MAX;
            if group.history_messages > max {
                return Err(format!("{place}: history_messages must be at most {max}"));
            }
        }
        Ok(())
    }

    fn check_recorder(&self) -> Result<(), String> {
        let highest = limits::REMEMBERED_HIGHEST;
        match self.settings.recorder.named().into_iter().find(|(_, max)| *max > highest) {
            Some((name, max)) => {
                Err(format!("gateway.recorder.{name} is {max}: at most {highest} is allowed"))
            }
            None => Ok(()),
        }
    }

    fn check_listeners(&self) -> Result<(), String> {
        let listeners = &self.settings.listeners;
        if listeners.is_empty() {
            return Err("gateway.listeners is empty: give at least one".to_owned());
        }
        for (index, listener) in listeners.iter().enumerate() {
            let place = format!("gateway.listeners[{index}] ({})", listener.name);
            name::check_visible("name", &listener.name).map_err(|error| format!("{place}: {error}"))?;
            self.check_app(&listener.app).map_err(|error| format!("{place}: {error}"))?;
            if !listener.service.is_empty() {
                name::check_visible("service", &listener.service)
                    .map_err(|error| format!("{place}: {error}"))?;
            }
            if collide(listener.bind, self.settings.internal.bind) {
                return Err(format!(
                    "{place}: gateway.internal.bind has the port {}, too",
                    listener.bind.port()
                ));
            }
            if let Some(other) = listeners[..index].iter().find(|other| collide(other.bind, listener.bind)) {
                let port = listener.bind.port();
                return Err(format!("{place}: the listener {:?} has the port {port}, too", other.name));
            }
            if listeners[..index].iter().any(|other| other.name == listener.name) {
                return Err(format!("{place}: another listener has the same name"));
            }
            if listener.authorize == Authorize::Worker && listener.service.is_empty() {
                return Err(format!("{place}: authorize = \"worker\" needs a service"));
            }
            if listener.proxy_protocol && listener.trusted_proxies.is_empty() {
                return Err(format!("{place}: proxy_protocol needs trusted_proxies, e.g. [\"10.0.0.0/8\"]"));
            }
            let silence = listener.silence();
            if !silence.is_zero() && !listener.ping_interval.is_zero() && silence <= listener.ping_interval {
                return Err(format!("{place}: silence_max must be longer than ping_interval"));
            }
        }
        Ok(())
    }

    fn check_outboxes(&self) -> Result<(), String> {
        let limits = &self.settings.limits;
        let outbox = limits::OUTBOX_LOW_WATER_BYTES..=limits::OUTBOX_BYTES_HIGHEST;
        if !outbox.contains(&limits.outbox_bytes_max) {
            return Err(format!(
                "gateway.limits.outbox_bytes_max must be {} to {} bytes",
                outbox.start(),
                outbox.end()
            ));
        }
        let mut followed = limits.clone();
        followed.follow();
        let (outbox, message) = (followed.outbox_bytes_max, limits.message_bytes_max);
        if outbox < message {
            return Err(format!(
                "gateway.limits.outbox_bytes_max ({outbox}) is less than message_bytes_max ({message}): \
                 what one client says could not be told to another; make it at least {message}, or leave it out"
            ));
        }
        let (all, frame) = (followed.outboxes_bytes_max, followed.frame_bytes_max());
        if all < frame {
            return Err(format!(
                "gateway.limits.outboxes_bytes_max ({all}) is less than what one client's outbox may hold \
                 ({frame}, by outbox_bytes_max): raise the one or lower the other"
            ));
        }
        let apps = self.apps.load();
        let loud = apps.iter().find(|app| !app.keys.is_empty() && app.limits.event_data_bytes_max > outbox);
        if let Some(app) = loud {
            return Err(format!(
                "app {:?}: limits.event_data_bytes_max ({}) is more than gateway.limits.outbox_bytes_max \
                 ({outbox}): no client could take such an event; lower the one or raise the other",
                app.id, app.limits.event_data_bytes_max
            ));
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), String> {
        let limits = &self.settings.limits;
        if limits.message_bytes_max == 0 || limits.message_bytes_max > limits::MESSAGE_BYTES_HIGHEST {
            return Err(format!(
                "gateway.limits.message_bytes_max must be 1 to {} bytes",
                limits::MESSAGE_BYTES_HIGHEST
            ));
        }
        self.check_outboxes()?;
        if [limits.events_per_client_max, limits.events_per_client_bytes_max, limits.clients_max].contains(&0)
        {
            return Err(
                "gateway.limits: events_per_client_max, events_per_client_bytes_max and clients_max must \
                        be at least 1"
                    .to_owned(),
            );
        }
        for (name, time) in [
            ("first_byte_time_max", limits.first_byte_time_max),
            ("handshake_time_max", limits.handshake_time_max),
            ("keep_alive_time_max", limits.keep_alive_time_max),
            ("close_time_max", limits.close_time_max),
            ("link_timeout", limits.link_timeout),
        ] {
            if time.is_zero() {
                return Err(format!("gateway.limits.{name} must be longer than 0s"));
            }
        }
        if limits.outbox_messages_max == 0 {
            return Err("gateway.limits.outbox_messages_max must be at least 1".to_owned());
        }
        if limits.api_bodies_bytes_max < limits::API_BODIES_BYTES_LEAST {
            return Err(format!(
                "gateway.limits.api_bodies_bytes_max must be at least {} bytes",
                limits::API_BODIES_BYTES_LEAST
            ));
        }
        let kept = limits::RETAINED_APP_BYTES_LEAST..=limits.retained_bytes_max;
        if !kept.contains(&limits.retained_app_bytes_max) {
            return Err(format!(
                "gateway.limits.retained_app_bytes_max is {}: it must be at least {} and at most retained_bytes_max, {}",
                limits.retained_app_bytes_max,
                kept.start(),
                kept.end()
            ));
        }
        if self.settings.shards.is_some_and(|shards| shards.get() > 256) {
            return Err("gateway.shards must be 1 to 256".to_owned());
        }
        Ok(())
    }
}
