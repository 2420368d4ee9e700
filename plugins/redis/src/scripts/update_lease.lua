-- For each item: task, tenant, worker, attempt, how far from now the new deadline is.

local body = {}
for n = FIRST, #ARGV, 5 do
  local task, code, detail = fence(ARGV[n], ARGV[n + 1], ARGV[n + 2], tonumber(ARGV[n + 3]))
  if task then
    local deadline = now + tonumber(ARGV[n + 4])
    set_state(task, 'IN_PROGRESS', 'INPROG_SET')
    hold(task, home(task), deadline)
    done(body, whole(deadline))
  else
    say(body, code, detail)
  end
end
return answer(body)
