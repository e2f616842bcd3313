-- Removes the entry of a message from an inbox.
local function take_out(inbox, id)
  for _, member in ipairs(call('ZRANGE', inbox, 0, -1)) do
    if string.sub(member, 1, 16) == id then return call('ZREM', inbox, member) end
  end
  return 0
end

