-- A conversation of three turns: one session, so that its order is kept.
INSERT INTO interactions (model_id, session, session_timeout, request_body, response_body) VALUES (
  'anthropic.claude-v2:1', 'CHAT-7', 30,
  '{"prompt":"\n\nHuman: Name a river in France.\n\nAssistant:","max_tokens_to_sample":50}',
  '{"completion":" The Loire.","stop_reason":"stop_sequence","stop":"\n\nHuman:"}'
);
