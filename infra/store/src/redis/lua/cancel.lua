-- KEYS: message, tally, timeline. ARGV: now. Gives nil when there is no such message, else 1 when it is in inboxes from
-- which it has to be taken out (also when a cancel before this one did not come that far), else 0.
local now = tonumber(ARGV[1])
local head = call('GETRANGE', KEYS[1], 0, 31)
if #head < 32 then return nil end
local cancelled, stream = number8(head, 9), number8(head, 17)
if cancelled == 0 then
  if now >= number8(head, 25) then return 0 end
  call('SETRANGE', KEYS[1], 8, bytes8(now))
  if stream > 0 then log(KEYS[2], 'y') end
  if stream > 1 then
    local member = call('ZRANGEBYSCORE', KEYS[3], digits(stream), digits(stream))[1]
    if member then
      call('ZREM', KEYS[3], member)
      call('ZADD', KEYS[3], digits(stream), string.sub(member, 1, 24) .. '\1' .. string.sub(member, 26))
    end
  end
end
if stream == 1 then return 1 end
return 0
