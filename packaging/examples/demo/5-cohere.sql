-- Cohere Command.
INSERT INTO interactions (model_id, content_type, accept, request_body, response_body) VALUES (
  'cohere.command-text-v14', 'application/json', '*/*',
  '{"prompt":"Write a LinkedIn post","temperature":0.8,"p":0.75,"k":0,"max_tokens":200,"stop_sequences":[],"return_likelihoods":"ALL","stream":false,"num_generations":1}',
  '{"generations":[{"finish_reason":"COMPLETE","id":"2e5a3b52","likelihood":-1.1754944e-38,"text":" Exciting news!","token_likelihoods":[{"likelihood":-0.5532227,"token":" Exciting"},{"likelihood":-0,"token":" news"},{"token":"!"}]}],"id":"9a8b7c","prompt":"Write a LinkedIn post"}'
);
