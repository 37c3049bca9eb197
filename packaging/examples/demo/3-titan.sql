-- Amazon Titan Text.
INSERT INTO interactions (model_id, content_type, accept, request_body, response_body) VALUES (
  'amazon.titan-text-express-v1', 'application/json', 'application/json',
  '{"inputText":"User: Who wrote \"Faust\"?\nBot:","textGenerationConfig":{"maxTokenCount":512,"stopSequences":["User:"],"temperature":0,"topP":0.9}}',
  '{"inputTextTokenCount":11,"results":[{"tokenCount":19,"outputText":" Johann Wolfgang von Goethe wrote \"Faust\".\n","completionReason":"FINISH"}]}'
);
