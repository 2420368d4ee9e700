-- For each item: id.

local body, say = answers(1)
for n = FIRST, #ARGV do
  local text = call('HGET', TASKS, ARGV[n])
  if not text then
    say('NOT_FOUND')
  else
    say('+', with_deadline(find(text, 'IN_PROGRESS', 1, true) and parse(ARGV[n], text), text))
  end
end
return answer(body)
