//! Answers without what their readers have no right to see: what messages, sessions and presence members hold.

use broadgate_proto::v1::{self, answer::Answer, group_event, pusher_event};

/// Takes payloads out of an answer.
pub(crate) fn hide(answer: &mut Answer) {
    match answer {
        Answer::Session(reply) => hide_session(&mut reply.session),
        Answer::Client(reply) => {
            if let Some(client) = &mut reply.client {
                client.session = None;
            }
        }
        Answer::Clients(reply) => reply.clients.iter_mut().for_each(|client| client.session = None),
        Answer::Roster(reply) => reply.members.iter_mut().for_each(|member| member.info.clear()),
        Answer::History(reply) => reply.messages.iter_mut().for_each(|message| message.payload = None),
        Answer::LastValue(reply) => reply.payload = None,
        Answer::Error(_)
        | Answer::Receipt(_)
        | Answer::Online(_)
        | Answer::Count(_)
        | Answer::Names(_)
        | Answer::Status(_)
        | Answer::Ended(_)
        | Answer::Sends(_)
        | Answer::Inspected(_)
        | Answer::Events(_)
        | Answer::Top(_) => {}
    }
}

/// Its version stays, by which it can be changed.
fn hide_session(session: &mut Option<v1::Session>) {
    if let Some(session) = session {
        session.json.clear();
    }
}

/// Takes the infos of presence members out of events of groups.
pub(crate) fn hide_in_events(events: &mut v1::GroupEvents) {
    use group_event::Event;
    for event in events.events.iter_mut().filter_map(|event| event.event.as_mut()) {
        match event {
            Event::Is(state) => state.members.iter_mut().for_each(|member| member.info.clear()),
            Event::Joined(member) => member.info.clear(),
            Event::Left(_) | Event::Vacated(_) | Event::Moved(_) => {}
        }
    }
}

/// Takes what Pusher clients said, and who they said they are, out of their events.
pub(crate) fn hide_in_pusher_events(events: &mut v1::PusherEvents) {
    use pusher_event::Event;
    for event in events.events.iter_mut().filter_map(|event| event.event.as_mut()) {
        match event {
            Event::Subscribed(subscribed) => subscribed.user_info_json.clear(),
            Event::ClientEvent(event) => event.data_json.clear(),
            Event::SignedIn(signed_in) => signed_in.user_data.clear(),
            Event::Opened(_) | Event::Closed(_) | Event::Unsubscribed(_) => {}
        }
    }
}
