-- The first example of the vendor's document: every column that it names.
INSERT INTO interactions (
  model_id, content_type, accept, request_id, request_at, response_at,
  session, session_timeout,
  user_id, is_authenticated, first_name, last_name, email, phone, gender,
  request_body, response_body
) VALUES (
  'anthropic.claude-instant-v1', 'application/json', 'application/json',
  '54425f31-cc8a-4ee0-a9b7-7a5c2ae3d0ac', 1696450259007, 1696450283264,
  'ABCDEF123456', 10,
  'ABC123', 1, 'Jane', 'Doe', 'jane.doe@example.com', '+1-555-0100', 'female',
  '{"prompt":"\n\nHuman: Story of two dogs\n\nAssistant:","max_tokens_to_sample":300,"temperature":0.5,"top_k":250,"top_p":1,"stop_sequences":["\n\nHuman:"],"anthropic_version":"bedrock-2023-05-31"}',
  '{"completion":" Here is a story about two dogs:\n\nRex and Max were two dogs who lived next door to each other.","stop_reason":"stop_sequence","stop":"\n\nHuman:"}'
);
