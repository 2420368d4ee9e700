-- For each item: command in lower case, tenant, group.

local body, say = answers(1)
for n = FIRST, #ARGV, 3 do
  say('+', whole((count_turn(ARGV[n], ARGV[n + 1], ARGV[n + 2]) - 1) % 2 ^ 53))
end
return answer(body)
